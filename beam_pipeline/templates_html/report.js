// Sections as tabs, and the filters of the clips. All state stands in the address (#clips?q=dog&teacher=x), so that a
// view can be shared and the Back button works. Text only ever enters the page as text.
"use strict";
(() => {
  const sections = [...document.querySelectorAll("main > section")];
  const links = [...document.querySelectorAll("nav a")];
  // The address names sections, but the browser shall not jump to them: the totals above stay in view.
  const inAddress = sections.some((section) => section.id === location.hash.slice(1).split("?")[0]);
  for (const section of sections) {
    section.dataset.name = section.id;
    section.id = `section-${section.id}`;
  }
  const form = document.getElementById("filters");
  const cards = document.getElementById("cards");
  const clips = cards ? [...cards.children].map(readCard) : [];
  const orders = { score: "score", margin: "margin", duration: "duration" };
  let lastSort = "";

  function readCard(card, place) {
    const number = (text) => (text === undefined ? null : Number(text));
    const { video, teacher, score, margin, duration, abstained } = card.dataset;
    return {
      card, place, video, teacher, score: number(score), margin: number(margin), duration: number(duration),
      abstained: abstained !== undefined, words: null,
    };
  }

  // Read on the first search only: half a thousand clips hold some megabytes of text.
  function wordsOf(clip) {
    if (clip.words === null) {
      const parts = clip.card.querySelectorAll(".caption, .text, .title, .subtitles");
      clip.words = [...parts].map((part) => part.textContent).join("\n").toLowerCase();
    }
    return clip.words;
  }

  function fits(clip, wanted) {
    const { q, teacher, video, min, max, abstained } = wanted;
    if (teacher && clip.teacher !== teacher) return false;
    if (video && clip.video !== video) return false;
    if (abstained && !clip.abstained) return false;
    if (min !== "" && (clip.score === null || clip.score < Number(min))) return false;
    if (max !== "" && (clip.score === null || clip.score > Number(max))) return false;
    return q.toLowerCase().split(/\s+/).every((word) => wordsOf(clip).includes(word));
  }

  function sorted(sort) {
    const [name, direction] = sort.split("-");
    const key = orders[name];
    if (!key) return [...clips];
    const sign = direction === "up" ? 1 : -1;
    return [...clips].sort((a, b) => {
      // A clip without the number stands last in both directions.
      if (a[key] === null || b[key] === null) return (a[key] === null) - (b[key] === null) || a.place - b.place;
      return sign * (a[key] - b[key]) || a.place - b.place;
    });
  }

  function filter() {
    const { q, teacher, video, min, max, sort, abstained } = form.elements;
    const wanted = {
      q: q.value.trim(), teacher: teacher.value, video: video.value, min: min.value, max: max.value,
      sort: sort.value, abstained: abstained.checked,
    };
    let count = 0;
    for (const clip of clips) {
      const fit = fits(clip, wanted);
      clip.card.hidden = !fit;
      count += fit;
    }
    if (wanted.sort !== lastSort) {
      lastSort = wanted.sort;
      cards.append(...sorted(wanted.sort).map((clip) => clip.card));
    }
    document.getElementById("shown").textContent =
      `${count.toLocaleString("en")} of ${clips.length.toLocaleString("en")} clips`;
    document.getElementById("none").hidden = count > 0;
    return wanted;
  }

  function writeAddress() {
    const wanted = filter();
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(wanted)) if (value) query.set(name, value === true ? "1" : value);
    const text = query.toString();
    history.replaceState(null, "", text ? `#clips?${text}` : "#clips");
  }

  function readAddress() {
    const [name, text = ""] = location.hash.slice(1).split(/\?(.*)/s);
    const open = sections.find((section) => section.dataset.name === name) || sections[0];
    for (const section of sections) section.hidden = section !== open;
    for (const link of links) {
      if (link.hash === `#${open.dataset.name}`) {
        link.setAttribute("aria-current", "page");
        // On a phone the tabs are wider than the screen.
        link.parentElement.scrollLeft = link.offsetLeft - 40;
      } else {
        link.removeAttribute("aria-current");
      }
    }
    if (form && open.dataset.name === "clips") {
      const query = new URLSearchParams(text);
      for (const field of form.elements) {
        if (field.type === "checkbox") field.checked = query.get(field.name) === "1";
        else if (field.name) field.value = query.get(field.name) ?? "";
        // An address may name a teacher or a video that this page doesn't show.
        if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = "";
      }
      filter();
    }
    return open;
  }

  function turn() {
    const open = readAddress();
    const bar = document.querySelector("nav");
    open.focus({ preventScroll: true });
    // A long tab was scrolled down: begin the next one at its top, below the tabs.
    const top = open.offsetTop - bar.offsetHeight;
    if (window.scrollY > top) window.scrollTo(0, top);
  }

  function step(by) {
    const visible = [...cards.children].filter((card) => !card.hidden);
    const at = visible.indexOf(document.activeElement.closest(".clip"));
    const next = visible[at < 0 ? (by > 0 ? 0 : visible.length - 1) : at + by];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "start" });
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !form || form.closest("section").hidden) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape" && typing) {
      form.reset();
    } else if (!typing && event.key === "/") {
      event.preventDefault();
      form.elements.q.focus();
    } else if (!typing && (event.key === "j" || event.key === "k")) {
      step(event.key === "j" ? 1 : -1);
    }
  }

  // The share of clips below a value, or up to it, of the evenly drawn clips that the page was written with. Many may
  // have the very same value: those are not below it, but they are up to it.
  function shareBelow(drawn, value, upTo) {
    return drawn.filter((one) => (upTo ? one <= value : one < value)).length / drawn.length;
  }

  for (const bounds of document.querySelectorAll("form.bounds")) {
    const figure = bounds.closest("figure");
    const drawn = JSON.parse(figure.dataset.drawn);
    const told = bounds.querySelector("output");
    bounds.hidden = false;
    bounds.addEventListener("submit", (event) => event.preventDefault());
    bounds.addEventListener("input", () => {
      const { low, high } = bounds.elements;
      const below = low.value === "" ? 0 : shareBelow(drawn, Number(low.value), false);
      const above = high.value === "" ? 0 : 1 - shareBelow(drawn, Number(high.value), true);
      told.textContent = `drops ${(100 * Math.min(1, below + above)).toFixed(1)} % of the clips`;
    });
  }

  document.documentElement.classList.add("scripted");
  if (form) {
    form.hidden = false;
    form.addEventListener("input", writeAddress);
    form.addEventListener("submit", (event) => event.preventDefault());
    // The fields have their old values until the event is over.
    form.addEventListener("reset", () => setTimeout(writeAddress));
  }
  document.addEventListener("keydown", press);
  window.addEventListener("hashchange", turn);
  readAddress();
  if (inAddress) window.scrollTo(0, 0);
})();
