// Judgements: the same person, or not. Each can be taken back.

import * as compare from "./compare.js";
import { byId, say, show } from "./dom.js";
import { setVerdict } from "./results.js";
import { call } from "./service.js";
import { state } from "./state.js";

const TOAST = 8000; // milliseconds for which a message stays

let sending = Promise.resolve(); // one after another, so that the last one counts

/** Judge a match, or take the same judgement back. */
export function judge(word, position) {
  const one = state.view;
  const { picture } = one.matches[position];
  const before = one.verdicts.get(picture) || null;
  const step = { picture, before };
  one.judged.push(step);
  put(one, picture, before === word ? null : word, () => { one.judged = one.judged.filter((other) => other !== step); });
}

/** Take the last judgement of the shown search back. */
export function undo() {
  const last = state.view?.judged.pop();
  if (last) put(state.view, last.picture, last.before);
  else toast("There is nothing to undo");
}

function set(one, picture, verdict) {
  one.verdicts.set(picture, verdict);
  if (state.view !== one) return;
  setVerdict(one.matches.findIndex((match) => match.picture === picture), verdict);
  if (compare.isOpen()) compare.redraw();
}

function put(one, picture, verdict, failed = () => {}) {
  const before = one.verdicts.get(picture) || null;
  const match = one.matches.find((other) => other.picture === picture);
  const name = match ? `Match ${match.rank}` : "A match";
  const done = { same: "the same person", different: "not the same person" }[verdict];
  set(one, picture, verdict);
  sending = sending.then(async () => {
    try {
      await call("v1/feedback", { method: "PUT", json: { search: one.answer.search, picture, verdict: verdict || "none" } });
      toast(done ? `${name}: ${done}` : `${name}: judgement taken back`, Boolean(done));
    } catch (error) {
      set(one, picture, before);
      failed();
      const forgotten = "the server forgot this search. Search again, then judge.";
      toast(`Not kept: ${error.status === 404 ? forgotten : error.detail || "the server did not answer."}`);
    }
  });
}

let toastTimer = null;

/** A message that leaves by itself, with a button that undoes if there is something to undo. */
export function toast(text, undoable = false) {
  clearTimeout(toastTimer);
  byId("toast-text").textContent = text;
  show(byId("undo"), undoable);
  show(byId("toast"), true);
  // A modal dialog covers all that is outside it.
  (document.querySelector("dialog[open]") || document.body).append(byId("toast"));
  say(text);
  const leave = () => {
    if (byId("toast").matches(":hover, :focus-within")) toastTimer = setTimeout(leave, TOAST);
    else show(byId("toast"), false);
  };
  toastTimer = setTimeout(leave, TOAST);
}
