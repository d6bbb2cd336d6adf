"""Sentences about the synthetic world: who, does what, to whom, in many wordings of 3 to 14 words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from momentkit.data.synthetic.concepts import COLOURS, PASSIVE, ROLES, SHAPES
from momentkit.data.synthetic.world import Actor, Fact

SHORTEST, LONGEST = 3, 14  # words
Name = TypeVar("Name")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a sentence means: None where it leaves a property open.

    Attributes:
        role: of `concepts.ROLES`.
        colour, shape: of the one who plays it.
        other_colour, other_shape: of the other side of an interaction.
    """

    role: str
    colour: str | None = None
    shape: str | None = None
    other_colour: str | None = None
    other_shape: str | None = None

    def fits(self, fact: Fact) -> bool:
        """Whether a fact is an instance of what is asked."""
        if fact.role != self.role or not _is(fact.actor, self.colour, self.shape):
            return False
        if self.other_colour is None and self.other_shape is None:
            return True
        return fact.other is not None and _is(fact.other, self.other_colour, self.other_shape)


def _is(actor: Actor, colour: str | None, shape: str | None) -> bool:
    return colour in (None, actor.colour) and shape in (None, actor.shape)


NOUNS = {
    "circle": ("circle", "ball", "disc"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid"),
    "star": ("star",),
    "heart": ("heart",),
    "cross": ("cross", "plus"),
}
ADJECTIVES = {colour: (colour,) for colour in COLOURS} | {
    "purple": ("purple", "violet"),
    "red": ("red", "crimson"),
}
# role -> (base, third person, -ing) of each wording; "to whom" follows where the role has another side
VERBS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "left": (
        ("move left", "moves left", "moving left"),
        ("slide to the left", "slides to the left", "sliding to the left"),
        ("go leftwards", "goes leftwards", "going leftwards"),
        ("travel to the left side", "travels to the left side", "travelling to the left side"),
    ),
    "right": (
        ("move right", "moves right", "moving right"),
        ("slide to the right", "slides to the right", "sliding to the right"),
        ("go rightwards", "goes rightwards", "going rightwards"),
        ("travel to the right side", "travels to the right side", "travelling to the right side"),
    ),
    "up": (
        ("move up", "moves up", "moving up"),
        ("rise", "rises", "rising"),
        ("climb upwards", "climbs upwards", "climbing upwards"),
        ("float to the top", "floats to the top", "floating to the top"),
    ),
    "down": (
        ("move down", "moves down", "moving down"),
        ("sink", "sinks", "sinking"),
        ("drop downwards", "drops downwards", "dropping downwards"),
        ("glide to the bottom", "glides to the bottom", "gliding to the bottom"),
    ),
    "jump": (
        ("jump", "jumps", "jumping"),
        ("hop up and down", "hops up and down", "hopping up and down"),
        ("leap", "leaps", "leaping"),
        ("bounce", "bounces", "bouncing"),
    ),
    "spin": (
        ("spin", "spins", "spinning"),
        ("spin around", "spins around", "spinning around"),
        ("rotate", "rotates", "rotating"),
        ("twirl", "twirls", "twirling"),
    ),
    "grow": (
        ("grow", "grows", "growing"),
        ("get bigger", "gets bigger", "getting bigger"),
        ("become larger", "becomes larger", "becoming larger"),
        ("swell", "swells", "swelling"),
    ),
    "shrink": (
        ("shrink", "shrinks", "shrinking"),
        ("get smaller", "gets smaller", "getting smaller"),
        ("become tiny", "becomes tiny", "becoming tiny"),
    ),
    "blink": (
        ("blink", "blinks", "blinking"),
        ("flash", "flashes", "flashing"),
        ("flicker", "flickers", "flickering"),
        ("blink on and off", "blinks on and off", "blinking on and off"),
    ),
    "shake": (
        ("shake", "shakes", "shaking"),
        ("tremble", "trembles", "trembling"),
        ("shiver", "shivers", "shivering"),
        ("vibrate quickly", "vibrates quickly", "vibrating quickly"),
    ),
    "loop": (
        ("move in a circle", "moves in a circle", "moving in a circle"),
        ("fly in loops", "flies in loops", "flying in loops"),
        ("go round and round", "goes round and round", "going round and round"),
    ),
    "sway": (
        ("sway", "sways", "swaying"),
        ("swing back and forth", "swings back and forth", "swinging back and forth"),
        ("move from side to side", "moves from side to side", "moving from side to side"),
    ),
    "topple": (
        ("fall over", "falls over", "falling over"),
        ("topple over", "topples over", "toppling over"),
        ("tip over", "tips over", "tipping over"),
    ),
    "stand": (
        ("stand up", "stands up", "standing up"),
        ("get up again", "gets up again", "getting up again"),
        ("straighten up", "straightens up", "straightening up"),
    ),
    "appear": (
        ("appear", "appears", "appearing"),
        ("fade in", "fades in", "fading in"),
        ("become visible", "becomes visible", "becoming visible"),
    ),
    "vanish": (
        ("vanish", "vanishes", "vanishing"),
        ("fade away", "fades away", "fading away"),
        ("disappear", "disappears", "disappearing"),
    ),
    "push": (("push", "pushes", "pushing"), ("shove", "shoves", "shoving")),
    "pushed": (
        ("be pushed by", "is pushed by", "being pushed by"),
        ("get shoved by", "gets shoved by", "getting shoved by"),
    ),
    "chase": (
        ("chase", "chases", "chasing"),
        ("run after", "runs after", "running after"),
        ("follow", "follows", "following"),
    ),
    "chased": (
        ("be chased by", "is chased by", "being chased by"),
        ("run away from", "runs away from", "running away from"),
        ("flee from", "flees from", "fleeing from"),
    ),
    "bump": (
        ("bump into", "bumps into", "bumping into"),
        ("hit", "hits", "hitting"),
        ("knock against", "knocks against", "knocking against"),
    ),
    "bumped": (
        ("be hit by", "is hit by", "being hit by"),
        ("get bumped by", "gets bumped by", "getting bumped by"),
    ),
    "orbit": (
        ("circle around", "circles around", "circling around"),
        ("orbit", "orbits", "orbiting"),
        ("run around", "runs around", "running around"),
    ),
    "orbited": (
        ("be circled by", "is circled by", "being circled by"),
        ("be orbited by", "is orbited by", "being orbited by"),
    ),
    "swap": (
        ("swap places with", "swaps places with", "swapping places with"),
        ("trade places with", "trades places with", "trading places with"),
        ("change places with", "changes places with", "changing places with"),
    ),
}
# {a}: subject with its article; {bare}: without; {b}, {s}, {i}: the three verb forms with their object
TEMPLATES = (
    "{a} {s}",
    "{a} {s}",  # the plainest wording twice as often
    "{a} is {i}",
    "{a} {i}",
    "{bare} {s}",
    "{bare} {i}",
    "{a} that {s}",
    "{a} starts {i}",
    "there is {a} {i}",
    "we see {a} {i}",
    "watch {a} {b}",
    "a moment when {a} {s}",
    "show me {a} {i}",
    "find {a} that is {i}",
    "when does {a} {b}",
)
_SIDED = frozenset(PASSIVE) | frozenset(PASSIVE.values())


def _pick(names: Sequence[Name], rng: np.random.Generator) -> Name:
    return names[int(rng.integers(len(names)))]


def sentence(ask: Ask, rng: np.random.Generator) -> str:
    """One wording of what is asked, drawn at random; 3 to 14 words."""
    for _ in range(100):
        text = _fill(_pick(TEMPLATES, rng), ask, rng)
        if SHORTEST <= len(text.split()) <= LONGEST:
            return text
    raise AssertionError(f"no wording of {ask} has {SHORTEST} to {LONGEST} words")


def _fill(template: str, ask: Ask, rng: np.random.Generator) -> str:
    forms = _pick(VERBS[ask.role], rng)
    tail = f" {_whom(ask, rng)}" if ask.role in _SIDED else ""
    noun = _noun(ask.colour, ask.shape, rng, relative="{a}" in template and "that" not in template)
    article = "" if noun.startswith("something") else _pick(("a", "the", "the"), rng)
    whole = f"{article} {noun}".strip()
    words = {"a": whole, "bare": noun, "b": forms[0] + tail, "s": forms[1] + tail, "i": forms[2] + tail}
    return re.sub(r"\ba (?=[aeiou])", "an ", template.format(**words))


def _noun(colour: str | None, shape: str | None, rng: np.random.Generator, *, relative: bool) -> str:
    """A noun phrase without article; the colour stands before the noun, sometimes in a relative clause."""
    adjective = "" if colour is None else _pick(ADJECTIVES[colour], rng)
    if shape is None:
        if rng.random() < 0.5:
            return f"something {adjective}".strip()
        return f"{adjective} {_pick(('shape', 'thing'), rng)}".strip()
    noun = _pick(NOUNS[shape], rng)
    if relative and colour is not None and rng.random() < 0.12:
        return f"{noun} that is {adjective}"
    return f"{adjective} {noun}".strip()


def _whom(ask: Ask, rng: np.random.Generator) -> str:
    if ask.other_colour is None and ask.other_shape is None:
        return _pick(("something", "another shape", "something else"), rng)
    noun = _noun(ask.other_colour, ask.other_shape, rng, relative=True)
    return noun if noun.startswith("something") else f"{_pick(('a', 'the', 'the'), rng)} {noun}"


def any_ask(rng: np.random.Generator) -> Ask:
    """A question drawn from all the grammar can ask, possible in a film or not."""
    role = _pick(ROLES, rng)
    colour, shape = _who(rng)
    if role not in _SIDED:
        return Ask(role=role, colour=colour, shape=shape)
    other_colour, other_shape = (None, None) if rng.random() < 0.2 else _who(rng)
    return Ask(role=role, colour=colour, shape=shape, other_colour=other_colour, other_shape=other_shape)


def _who(rng: np.random.Generator) -> tuple[str | None, str | None]:
    colour, shape = _pick(COLOURS, rng), _pick(SHAPES, rng)
    open_side = rng.random()
    return (None if open_side < 0.15 else colour, None if 0.15 <= open_side < 0.3 else shape)


def vocabulary() -> tuple[str, ...]:
    """Every word a sentence can hold, sorted."""
    texts = ["a an the something another shape thing else that is", " ".join(TEMPLATES)]
    texts += [form for forms in VERBS.values() for verb in forms for form in verb]
    texts += [word for names in (NOUNS, ADJECTIVES) for words in names.values() for word in words]
    return tuple(sorted({word for text in texts for word in re.sub(r"\{\w+\}", " ", text).split()}))
