// The keyboard. Single keys can be switched off in the help.

import * as compare from "./compare.js";
import { byId, openDialog } from "./dom.js";
import { undo } from "./judgements.js";
import { cards, neighbour, positionOf, setCurrent } from "./results.js";
import { state } from "./state.js";

const ACTS = { s: "from", y: "same", n: "different" };

const typing = (target) => target.closest?.("input:not([type=checkbox], [type=radio], [type=range]), textarea, select") !== null;
const choosing = (target) => target.closest?.("input, select, textarea, summary") !== null;

const keysOn = () => byId("keys-on").checked;

let act = () => {}; // does something with a match

function judgeKey(key, position) {
  const letter = key.toLowerCase();
  if (!keysOn()) return false;
  if (letter === "u") undo();
  else if (letter in ACTS) act(ACTS[letter], position);
  else return false;
  return true;
}

function cardKeys(event, position) {
  const { key } = event;
  if (key.startsWith("Arrow")) {
    const next = neighbour(position, key);
    if (next !== null) {
      state.view.current = next;
      setCurrent(next);
    }
    return next !== null;
  }
  return judgeKey(key, position);
}

function dialogKeys(event) {
  const { key } = event;
  if (!compare.isOpen() || choosing(event.target)) return false;
  if (key === "ArrowLeft" || key === "ArrowRight") {
    compare.step(key === "ArrowRight" ? 1 : -1);
    state.view.current = compare.position();
    setCurrent(state.view.current, false);
    return true;
  }
  return judgeKey(key, compare.position());
}

function pageKeys(event) {
  const { key } = event;
  if (key === "Escape" && state.running) {
    state.running.abort();
    return true;
  }
  if (cards().length && (key === "ArrowLeft" || key === "ArrowRight") && !choosing(event.target)) {
    setCurrent(state.view.current);
    return true;
  }
  if (!keysOn()) return false;
  if (key === "/") byId("choose").focus();
  else if (key === "?") openDialog(byId("help"));
  else if (key.toLowerCase() === "u" && cards().length) undo();
  else return false;
  return true;
}

function onKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  let used;
  if (document.querySelector("dialog[open]")) {
    used = dialogKeys(event);
  } else {
    const position = positionOf(event.target);
    used = (position >= 0 && cardKeys(event, position)) || pageKeys(event);
  }
  if (used) event.preventDefault();
}

/** @param does called with "from", "same" or "different", and the position of a match */
export function listenForKeys(does) {
  act = does;
  document.addEventListener("keydown", onKey);
}
