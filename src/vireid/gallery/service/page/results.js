// What a search found: the verdict, and the matches as cards that the keyboard moves among.

import { byId, foreign, hidden, icon, make } from "./dom.js";
import { thumbnail } from "./service.js";
import { MODALITIES, STATES, advice, count, named, plural, searched, strangersExpected, when } from "./words.js";

const EARLY = "400px"; // thumbnails are fetched so far before they come into view
const SHORT = 3; // a camera's name of so many characters, such as 2, needs the word before it

/** The sentence for people who listen, and the banner for people who look. */
export function verdictOf(answer) {
  const all = MODALITIES.reduce((sum, one) => sum + (answer.searched[one] || 0), 0);
  if (all === 0) {
    return { icon: "none", tone: "none", title: "No picture passes the filters", words: "Nothing was searched. Clear a filter, or choose a longer time.", none: true };
  }
  const state = STATES[answer.state] ? answer.state : "uncalibrated";
  const { title, means } = STATES[state];
  const repeated = [". ", ": "].some((end) => answer.words?.startsWith(title + end));
  const words = repeated ? answer.words.slice(title.length + 2) : answer.words || means;
  return { icon: state, tone: state, title, words, detail: `Searched ${searched(answer.searched)}.` };
}

export function problemBanner(problem) {
  const [title, todo] = advice(problem.status);
  return { icon: "error", tone: "error", title, words: problem.detail, detail: todo };
}

/** Show a banner: { icon, tone, title, words, detail, buttons, spinning }. */
export function showBanner(banner) {
  const place = byId("verdict");
  place.dataset.tone = banner.tone;
  const sign = make("span", { class: banner.spinning ? "sign spinning" : "sign" }, icon(banner.icon));
  const text = make("div", { class: "verdict-text" }, make("p", { class: "verdict-title" }, banner.title));
  if (banner.words) text.append(make("p", { class: "verdict-words" }, sentence(banner.words)));
  if (banner.detail) text.append(make("p", { class: "small faint" }, banner.detail));
  place.replaceChildren(sign, text, make("div", { class: "buttons" }, ...(banner.buttons || [])));
  place.hidden = false;
}

function sentence(words) {
  const text = words.trim();
  const ended = /[.!?…”]$/.test(text) ? text : `${text}.`;
  return ended.charAt(0).toLocaleUpperCase() + ended.slice(1);
}

export function skeleton(number = 12) {
  const cards = Array.from({ length: number }, () => make("li", { class: "card skeleton" }, make("div", { class: "frame" }), make("div", { class: "line" }), make("div", { class: "line short" })));
  return make("ul", { class: "cards", "aria-hidden": "true" }, ...cards);
}

export function modalityTag(modality) {
  return make("span", { class: `tag ${modality}` }, icon(modality), modality);
}

export function similarity(match) {
  if (match.strangers === null || match.strangers === undefined) return `Cosine ${match.cosine.toFixed(2)}`;
  return strangersExpected(match.strangers);
}

export function timeOf(match, exact = false) {
  const time = when(match.time);
  return time ? make("time", { datetime: time.iso, title: time.iso }, `${time.date}, ${exact ? time.second : time.minute}`) : make("span", {}, "time not known");
}

const watching = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    watching.unobserve(entry.target);
    fillFrame(entry.target, entry.target.dataset.picture, entry.target.dataset.alt);
  }
}, { rootMargin: EARLY });

/** Put the thumbnail of a picture into a frame. */
export async function fillFrame(frame, id, alt) {
  try {
    const image = make("img", { alt, src: await thumbnail(id) });
    frame.replaceChildren(image);
  } catch {
    frame.replaceChildren(make("span", { class: "missing" }, icon("person"), make("span", {}, "no thumbnail"), hidden(alt)));
  }
}

function card(match, position, verdict, act) {
  const frame = make("span", { class: "frame", "data-picture": match.picture, "data-alt": named(match) });
  watching.observe(frame);
  const label = `match ${match.rank}`;
  const look = make("button", { type: "button", class: "look", onclick: () => act("compare", position) }, frame, make("span", { class: "rank" }, hidden("match "), count(match.rank)), hidden(": compare"));
  const same = make("button", { type: "button", class: "plain same", "aria-pressed": String(verdict === "same"), "aria-keyshortcuts": "y", title: "The same person (y)", onclick: () => act("same", position) }, icon("yes"), "Same", hidden(` person, ${label}`));
  const not = make("button", { type: "button", class: "plain not", "aria-pressed": String(verdict === "different"), "aria-keyshortcuts": "n", title: "Not the same person (n)", onclick: () => act("different", position) }, icon("no"), "Not", hidden(` the same person, ${label}`));
  const from = make("button", { type: "button", class: "plain from", "aria-keyshortcuts": "s", title: "Search with this picture (s)", onclick: () => act("from", position) }, icon("search"), "Search from", hidden(` ${label}`));
  const rare = match.strangers !== null && match.strangers !== undefined && match.strangers <= 1;
  return make("li", { class: "card", "data-verdict": verdict || "none" },
    look,
    make("div", { class: "about" },
      make("p", { class: rare ? "similar rare" : "similar" }, similarity(match)),
      make("p", { class: "camera" }, match.camera.length > SHORT ? hidden("Camera ") : "Camera ", foreign(match.camera)),
      make("p", { class: "small faint" }, timeOf(match)),
      modalityTag(match.modality)),
    make("div", { class: "actions" }, from, same, not));
}

const MERGED = "merged";

/** Matches without a ratio cannot be compared with those of the other modality, so each modality has its own list. */
const listOf = (match) => (match.ratio === null ? match.modality : MERGED);
const listsOf = (matches) => [...new Set(matches.map(listOf))];

/** Matches of several pages, list after list. */
export function inLists(matches) {
  return listsOf(matches).flatMap((list) => matches.filter((match) => listOf(match) === list));
}

/**
 * The matches of a view.
 *
 * @param act called with "compare", "from", "same" or "different", and the position of the match
 * @param from matches before this one are on the page already
 */
export function drawMatches(view, act, from = 0) {
  const place = byId("list");
  const lists = listsOf(view.matches);
  const calibrated = lists.every((one) => one === MERGED);
  const start = calibrated ? from : 0;
  const cards = view.matches.slice(start).map((match, at) => card(match, start + at, view.verdicts.get(match.picture), act));
  if (calibrated && start > 0) {
    place.querySelector(".cards").append(...cards);
  } else if (calibrated) {
    place.replaceChildren(make("ul", { class: "cards" }, ...cards));
  } else {
    place.replaceChildren(...lists.map((list) => {
      const those = view.matches.map((match, position) => ({ match, position })).filter(({ match }) => listOf(match) === list);
      const modality = those[0].match.modality;
      const number = plural(view.answer.searched[modality] || 0, "picture", "pictures");
      const title = make("h3", {}, icon(modality), `${modality === "visible" ? "Visible" : "Infrared"} pictures`, make("span", { class: "faint" }, ` ${number} searched${list === MERGED ? "" : ", not calibrated"}`));
      return make("section", { class: "half" }, title, make("ul", { class: "cards" }, ...those.map(({ position }) => cards[position])));
    }));
  }
  setCurrent(view.current, false);
}

export const cards = () => [...document.querySelectorAll("#list .card:not(.skeleton)")];
const lookOf = (one) => one.querySelector(".look");

/** Only the buttons of the current card are reached with Tab, so that a page of cards is no hundred steps. */
export function setCurrent(position, focus = true) {
  cards().forEach((one, place) => {
    for (const button of one.querySelectorAll("button")) button.tabIndex = place === position ? 0 : -1;
    one.classList.toggle("current", place === position);
  });
  if (focus && cards()[position]) lookOf(cards()[position]).focus();
}

/** The position of the card that holds an element, or −1. */
export const positionOf = (element) => cards().findIndex((one) => one.contains(element));

/** Show what was judged of a match. */
export function setVerdict(position, verdict) {
  const one = cards()[position];
  if (!one) return;
  one.dataset.verdict = verdict || "none";
  one.querySelector(".same").setAttribute("aria-pressed", String(verdict === "same"));
  one.querySelector(".not").setAttribute("aria-pressed", String(verdict === "different"));
}

/** The position of the card that an arrow key leads to, or null. Rows are as the page happens to lay them out. */
export function neighbour(position, key) {
  const all = cards();
  if (!all[position]) return null;
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const next = position + (key === "ArrowRight" ? 1 : -1);
    return all[next] ? next : null;
  }
  const down = key === "ArrowDown";
  const here = all[position].getBoundingClientRect();
  const boxes = all.map((one, place) => ({ place, box: one.getBoundingClientRect() }));
  const beyond = boxes.filter(({ box }) => (down ? box.top > here.top + 4 : box.top < here.top - 4));
  if (!beyond.length) return null;
  const tops = beyond.map(({ box }) => box.top);
  const row = down ? Math.min(...tops) : Math.max(...tops);
  const inRow = beyond.filter(({ box }) => Math.abs(box.top - row) <= 4);
  inRow.sort((one, other) => Math.abs(one.box.left - here.left) - Math.abs(other.box.left - here.left));
  return inRow[0].place;
}
