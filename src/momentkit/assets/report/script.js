"use strict";
// Everything is already on the page; this adds switching, seeking and the moving play head.
(() => {
  const film = document.getElementById("film");
  const caption = document.getElementById("caption");
  const chips = [...document.querySelectorAll(".chip")];
  const panels = [...document.querySelectorAll(".panel")];
  let current = 0;
  let stopAt = null; // where playing a moment ends

  document.body.classList.add("script");

  // A browser seeks in a blob by ranges; in a data address not every browser can.
  if (film && film.getAttribute("src").startsWith("data:")) {
    const [head, body] = film.getAttribute("src").split(",");
    const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    film.src = URL.createObjectURL(new Blob([bytes], { type: head.slice(5).split(";")[0] }));
  }

  function seek(time, end) {
    if (!film) return;
    film.currentTime = time;
    stopAt = end ?? null;
    if (end != null) film.play().catch(() => {});
    draw();
  }

  function show(index, focus) {
    current = (index + panels.length) % panels.length;
    panels.forEach((panel, i) => panel.classList.toggle("current", i === current));
    chips.forEach((chip, i) => chip.setAttribute("aria-current", String(i === current)));
    if (focus) chips[current].focus({ preventScroll: true });
    draw();
  }

  function seekBest() {
    const best = panels[current].querySelector(".bar.found");
    if (best) seek(Number(best.dataset.start));
  }

  function draw() {
    if (!film) return;
    const panel = panels[current];
    const head = panel.querySelector(".head");
    const duration = Number(panel.dataset.duration);
    head.hidden = false;
    head.style.left = `${100 * Math.min(film.currentTime / duration, 1)}%`;
    const inside = (kind) => [...panel.querySelectorAll(`.bar.${kind}`)].find(
      (bar) => film.currentTime >= Number(bar.dataset.start) - 0.05 && film.currentTime < Number(bar.dataset.end));
    const found = inside("found");
    if (!caption.classList.contains("fault")) {
      caption.classList.toggle("on", Boolean(found));
      if (found) caption.textContent = `${panel.querySelector("h2").textContent} · ${found.dataset.score}`;
    }
  }

  function tick() {
    if (stopAt !== null && film.currentTime >= stopAt) {
      film.pause();
      stopAt = null;
    }
    draw();
    if (!film.paused) requestAnimationFrame(tick);
  }

  chips.forEach((chip, index) => chip.addEventListener("click", (event) => {
    event.preventDefault();
    show(index);
    seekBest();
  }));

  document.querySelectorAll("[data-start]").forEach((button) => button.addEventListener("click", (event) => {
    event.stopPropagation();
    seek(Number(button.dataset.start), Number(button.dataset.end));
  }));

  document.querySelectorAll(".tracks").forEach((tracks) => tracks.addEventListener("click", (event) => {
    const box = tracks.getBoundingClientRect();
    const duration = Number(tracks.closest(".panel").dataset.duration);
    seek(Math.max(0, (event.clientX - box.left) / box.width) * duration);
  }));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === film) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const jump = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) show(current + step, true);
    else if (jump && film) seek(Math.max(0, film.currentTime + jump));
    else if (event.key === " " && film && !event.target.closest("button, a")) {
      if (film.paused) film.play(); else film.pause();
    } else return;
    event.preventDefault();
  });

  if (film) {
    film.addEventListener("play", tick);
    film.addEventListener("seeked", draw);
    film.addEventListener("timeupdate", draw);
    film.addEventListener("loadedmetadata", seekBest, { once: true }); // a picture to begin with
    film.addEventListener("error", () => {
      caption.textContent = "This browser cannot play the film; the time lines below stand without it.";
      caption.classList.add("on", "fault");
    });
  }
  show(0);
})();
