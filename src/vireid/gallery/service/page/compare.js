// The query and a match side by side, in a dialog.

import { byId, foreign, hidden, icon, make, openDialog } from "./dom.js";
import { fillFrame, modalityTag, setCurrent, similarity, timeOf } from "./results.js";
import { count, named, strangers } from "./words.js";

let shown = null; // { view, position, act }

function fact(word, ...value) {
  return make("div", {}, make("dt", {}, word), make("dd", {}, ...value));
}

function strangersFact(match) {
  if (match.strangers === null || match.strangers === undefined) return fact("Strangers expected", "not calibrated");
  const upper = match.strangers_upper;
  const range = upper === null || upper === undefined ? "" : ` (at most ${strangers(upper)}, 95 % interval)`;
  return fact("Strangers expected", `${strangers(match.strangers)}${range}`);
}

function drawQuery(view) {
  const place = byId("compare-query");
  place.replaceChildren();
  const first = view.query.pictures[0];
  if (first) place.append(make("img", { alt: "your picture", src: first.url }));
  else if (view.query.picture) fillFrame(place, view.query.picture, "the picture that is searched from");
  else place.append(make("span", { class: "missing" }, icon("person"), "not in this tab any more"));
  const many = view.query.pictures.length;
  byId("compare-query-text").replaceChildren(many > 1 ? `Your picture, the first of ${count(many)}` : view.query.picture ? "Searched from" : "Your picture", " ", modalityTag(view.answer.query.modality));
}

function draw() {
  const { view, position, act } = shown;
  const match = view.matches[position];
  const verdict = view.verdicts.get(match.picture);
  byId("compare-title").textContent = `Match ${count(match.rank)}`;
  drawQuery(view);
  byId("compare-match").replaceChildren();
  fillFrame(byId("compare-match"), match.picture, named(match));
  byId("compare-match-text").replaceChildren(similarity(match), " ", modalityTag(match.modality));
  const facts = [fact("Camera", foreign(match.camera)), fact("Time", timeOf(match, true)), strangersFact(match), fact("Cosine", match.cosine.toFixed(3))];
  if (match.source) facts.splice(1, 0, fact("Source", foreign(match.source)));
  if (match.ratio !== null && match.ratio !== undefined) facts.push(fact("Log-likelihood ratio", match.ratio.toFixed(2)));
  facts.push(fact("Picture", make("code", {}, match.picture)));
  byId("compare-facts").replaceChildren(...facts);
  const judge = (word, title, sign, key) => make("button", { type: "button", class: `plain ${word === "same" ? "same" : "not"}`, "aria-pressed": String(verdict === word), "aria-keyshortcuts": key, "data-act": word, onclick: () => act(word, position) }, icon(sign), title, hidden(word === "same" ? " person" : " the same person"));
  byId("compare-actions").replaceChildren(
    make("button", { type: "button", class: "plain from", "aria-keyshortcuts": "s", "data-act": "from", onclick: () => act("from", position) }, icon("search"), "Search from"),
    judge("same", "Same", "yes", "y"),
    judge("different", "Not", "no", "n"));
  byId("compare-before").disabled = position === 0;
  byId("compare-after").disabled = position === view.matches.length - 1;
}

export const isOpen = () => byId("compare").open;
export const position = () => shown.position;

export function openCompare(view, position, act) {
  shown = { view, position, act };
  draw();
  openDialog(byId("compare"), () => setCurrent(shown.position)); // the match that was seen last
}

/** Draw again after a judgement, with the focus where it was. */
export function redraw() {
  const act = document.activeElement?.dataset.act;
  draw();
  if (act) byId("compare-actions").querySelector(`[data-act=${act}]`).focus();
}

/** Go to another match, as far as there is one. */
export function step(by) {
  const next = shown.position + by;
  if (next < 0 || next >= shown.view.matches.length) return;
  shown.position = next;
  redraw();
}

export function closeCompare() {
  byId("compare").close();
}
