"""The concepts of the synthetic world: what an actor can be and do, and their order in a descriptor.

A clip's descriptor holds one number in [0, 1] a concept. Every concept joins two properties of one actor,
so that "a red circle jumps while a blue square spins" and "a blue circle jumps while a red square spins"
differ:

    [0, CA)             colour x role     7 x 25 = 175
    [CA, CA + SA)       shape x role      6 x 25 = 150
    [CA + SA, CONCEPTS) colour x shape    7 x 6  =  42   (visible at all)

A role is an action, or one side of an interaction: who chases, who is chased.
"""

from momentkit.core.errors import DataError

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
SOLO = (
    "left",
    "right",
    "up",
    "down",
    "jump",
    "spin",
    "grow",
    "shrink",
    "blink",
    "shake",
    "loop",
    "sway",
    "topple",
    "stand",
    "appear",
    "vanish",
)
PASSIVE = {"push": "pushed", "chase": "chased", "bump": "bumped", "orbit": "orbited", "swap": "swap"}
"""Interaction -> the role of the one it is done to; swapping places is the same for both."""
ROLES = (*SOLO, "push", "pushed", "chase", "chased", "bump", "bumped", "orbit", "orbited", "swap")

_CA, _SA = len(COLOURS) * len(ROLES), len(SHAPES) * len(ROLES)
CONCEPTS = _CA + _SA + len(COLOURS) * len(SHAPES)
COLOUR_ROLE = slice(0, _CA)
SHAPE_ROLE = slice(_CA, _CA + _SA)
COLOUR_SHAPE = slice(_CA + _SA, CONCEPTS)


def colour_role(colour: str, role: str) -> int:
    """Index of "something of this colour plays this role"."""
    return _position(COLOURS, colour) * len(ROLES) + _position(ROLES, role)


def shape_role(shape: str, role: str) -> int:
    """Index of "something of this shape plays this role"."""
    return _CA + _position(SHAPES, shape) * len(ROLES) + _position(ROLES, role)


def colour_shape(colour: str, shape: str) -> int:
    """Index of "this kind of actor can be seen"."""
    return _CA + _SA + _position(COLOURS, colour) * len(SHAPES) + _position(SHAPES, shape)


def _position(names: tuple[str, ...], name: str) -> int:
    if name not in names:
        raise DataError(f"the synthetic world knows no {name!r}; there are {', '.join(names)}")
    return names.index(name)
