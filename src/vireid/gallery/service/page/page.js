// The page: searches and their history.

import { askForToken } from "./access.js";
import * as compare from "./compare.js";
import { byId, icon, make, openDialog, say, show } from "./dom.js";
import { Filters, NO_FILTER, pairsOf } from "./filters.js";
import { judge, toast, undo } from "./judgements.js";
import { listenForKeys } from "./keys.js";
import { drawQuery, listenForPictures } from "./query.js";
import { cards, drawMatches, inLists, positionOf, problemBanner, setCurrent, showBanner, skeleton, verdictOf } from "./results.js";
import { Problem, answer, asksWith, isAbort, takeToken } from "./service.js";
import { state } from "./state.js";
import { MODALITIES, STATES, count, days, plural } from "./words.js";

const PAGE = 24; // matches that are asked for at once
const VIEWS = 30; // searches in memory, for the way back
const PATIENCE = 300; // milliseconds after a changed filter, because people tick several

let waiting = null; // a search that waits for its reason
const views = new Map(); // key → view

function newView(query, asked = "auto") {
  return {
    key: crypto.randomUUID ? crypto.randomUUID() : String(Math.random()), depth: state.view ? state.view.depth + 1 : 1, query, asked,
    filter: filters.read(), answer: null, matches: [], verdicts: new Map(), judged: [], current: 0, problem: null, stale: false,
  };
}

function remember(one) {
  views.set(one.key, one);
  const oldest = views.keys().next().value;
  if (views.size > VIEWS && oldest !== one.key) views.delete(oldest);
}

/** What the browser keeps of a view beyond a reload. */
function kept(one) {
  return { key: one.key, depth: one.depth, search: one.answer?.search || null, picture: one.query.picture, asked: one.asked, filter: one.filter };
}

function keep(one) {
  if (history.state?.key === one.key) history.replaceState(kept(one), "");
}

// ---- Searching

/** Run `work(signal)` as the one search, with the state of waiting and of failing. */
async function run(one, work, { fresh }) {
  state.running?.abort();
  const mine = new AbortController();
  state.running = mine;
  drawWaiting(fresh);
  try {
    await work(mine.signal);
    one.problem = null;
  } catch (error) {
    if (state.running !== mine) return;
    if (isAbort(error)) one.problem = new Problem(-1, "");
    else one.problem = error instanceof Problem ? error : new Problem(500, "");
    if (one.problem.word === "reason-required") one.problem = null;
    if (!(error instanceof Problem) && !isAbort(error)) console.error(error);
  }
  if (state.running !== mine) return;
  state.running = null;
  stopCountdown();
  keep(one);
  draw();
}

function received(one, found, start = 0) {
  one.answer = { ...found, start };
  one.stale = false;
  one.matches = inLists(start ? [...one.matches, ...found.matches] : found.matches);
  if (!start) one.current = 0;
}

/** Send the pictures, or name the picture of the gallery. */
async function send(one, signal) {
  const reason = byId("reason").value.trim();
  const path = "v1/searches";
  if (one.query.picture) {
    const named = Object.fromEntries(Object.entries(one.filter).filter(([, value]) => value !== null && value.length !== 0));
    const json = { picture: one.query.picture, top: PAGE, ...named, ...(reason ? { reason } : {}) };
    received(one, await answer(path, { method: "POST", json, signal, busy: startCountdown }));
    return;
  }
  if (!one.query.pictures.length) throw new Problem(404, "The picture is not in this tab any more.");
  const form = new FormData();
  one.query.pictures.forEach(({ blob }, n) => form.append("image", blob, `picture-${n + 1}`));
  form.append("modality", one.asked);
  form.append("top", PAGE);
  if (reason) form.append("reason", reason);
  for (const [name, value] of pairsOf(one.filter)) form.append(name, value);
  received(one, await answer(path, { method: "POST", form, signal, busy: startCountdown }));
}

/** Ask for the same search with other filters or from another match on; send it again if the server forgot it. */
async function ask(one, signal, start = 0) {
  const pairs = new URLSearchParams([...pairsOf(one.filter), ["top", PAGE], ["start", start]]);
  try {
    received(one, await answer(`v1/searches/${encodeURIComponent(one.answer.search)}?${pairs}`, { signal, busy: startCountdown }), start);
  } catch (error) {
    if (error.status !== 404) throw error;
    await send(one, signal);
  }
}

function hasReason() {
  if (!state.facets?.require_reason || byId("reason").value.trim()) return true;
  byId("reason").setAttribute("aria-invalid", "true");
  byId("reason").focus();
  showBanner({ icon: "uncalibrated", tone: "none", title: "A reason is needed", words: "Write why you search. Then press Enter." });
  say("A reason is needed. Write why you search.");
  return false;
}

/** A new search: a new step of the history. */
function begin(one) {
  waiting = null;
  document.body.dataset.view = "search";
  if (!hasReason()) {
    drawQuery(one);
    waiting = one;
    return;
  }
  const inList = byId("list").contains(document.activeElement) || compare.isOpen();
  leaveSearch();
  if (state.view) state.view.scroll = window.scrollY;
  state.view = one;
  remember(one);
  history.pushState(kept(one), "");
  window.scrollTo(0, 0);
  run(one, (signal) => send(one, signal), { fresh: true }).then(() => {
    if (inList && state.view === one && cards().length) setCurrent(0);
  });
}

/** The shown search once more, as it is asked now. */
function again() {
  const one = state.view;
  if (hasReason()) run(one, (signal) => send(one, signal), { fresh: true });
}

let soon = null;

function filtersChanged() {
  if (!state.view) return;
  const one = state.view;
  one.filter = filters.read();
  clearTimeout(soon);
  one.stale = true;
  soon = setTimeout(() => { if (state.view === one) refine(one, false); }, PATIENCE);
}

/** Bring the matches of a view to its filter. */
function refine(one, fresh = true) {
  run(one, (signal) => (one.answer ? ask(one, signal) : send(one, signal)), { fresh });
}

async function showMore() {
  const one = state.view;
  const had = one.matches.length;
  const seen = new Set(one.matches.map((match) => match.picture));
  byId("more").disabled = true;
  try {
    const mine = new AbortController();
    state.running?.abort();
    state.running = mine;
    byId("list").setAttribute("aria-busy", "true");
    await ask(one, mine.signal, one.answer.next);
    if (state.running !== mine || state.view !== one) return;
    state.running = null;
    stopCountdown();
    draw(one.answer.start ? had : 0);
    const first = one.matches.findIndex((match) => !seen.has(match.picture));
    if (first >= 0) setCurrent(first);
    say(`${plural(one.matches.length - had, "more result", "more results")}.`);
  } catch (error) {
    if (!isAbort(error)) toast(`No more results: ${error.detail || "the server did not answer"}`);
  } finally {
    byId("more").disabled = false;
    byId("list").setAttribute("aria-busy", "false");
  }
}

// ---- Pictures

function searchFrom(position) {
  const match = state.view.matches[position];
  state.view.current = position;
  begin(newView({ pictures: [], picture: match.picture, title: match }));
}

function act(what, position) {
  if (what === "compare") compare.openCompare(state.view, position, act);
  else if (what === "from") searchFrom(position);
  else judge(what, position);
}

// ---- Drawing

let countdown = null;

function stopCountdown() {
  clearInterval(countdown);
  countdown = null;
}

const cancelButton = () => make("button", { type: "button", class: "plain", onclick: () => state.running?.abort() }, "Cancel");

function startCountdown(seconds) {
  stopCountdown();
  let left = Math.ceil(seconds);
  const tell = () => {
    if (left <= 0) {
      stopCountdown();
      drawWaiting(false);
    } else {
      showBanner({ icon: "busy", tone: "busy", title: "The server is busy", words: `Trying again in ${left} s.`, buttons: [cancelButton()] });
    }
    left -= 1;
  };
  say(`The server is busy. Trying again in ${left} seconds.`);
  tell();
  countdown = setInterval(tell, 1000);
}

function drawWaiting(fresh) {
  document.body.dataset.view = "search";
  byId("list").setAttribute("aria-busy", "true");
  show(byId("more"), false);
  showBanner({ icon: "search", tone: "busy", title: "Searching…", spinning: true, buttons: [cancelButton()] });
  if (fresh) {
    say("Searching");
    drawQuery(state.view);
    byId("list").replaceChildren(skeleton());
    show(byId("tools"), false);
  }
}

function tryAgain() {
  return make("button", { type: "button", class: "main", onclick: () => refine(state.view) }, "Try again");
}

function bannerOf(one) {
  if (one.problem?.status === -1) return { icon: "none", tone: "none", title: "Cancelled", buttons: [tryAgain()] };
  if (one.problem) return { ...problemBanner(one.problem), buttons: [tryAgain()] };
  const found = verdictOf(one.answer);
  if (found.none) found.buttons = [make("button", { type: "button", class: "main", onclick: () => filters.clear() }, "Clear all filters")];
  return found;
}

/** Show the view. Matches before `from` are on the page already. */
function draw(from = 0) {
  document.body.dataset.view = state.view ? "search" : "start";
  drawQuery(state.view);
  byId("list").setAttribute("aria-busy", "false");
  show(byId("verdict"), Boolean(state.view));
  show(byId("tools"), Boolean(state.view?.answer));
  show(byId("back"), Boolean(state.view && state.view.depth > 1));
  show(byId("explain"), Boolean(state.view?.answer?.state) && !state.view.problem);
  if (!state.view) {
    byId("list").replaceChildren();
    show(byId("more"), false);
    return;
  }
  const whole = state.view.answer && !state.view.problem;
  const banner = whole || state.view.problem ? bannerOf(state.view) : null;
  if (banner) showBanner(banner);
  else hasReason();
  if (whole) drawMatches(state.view, act, from);
  else byId("list").replaceChildren();
  show(byId("more"), Boolean(whole && state.view.answer.next !== null && state.view.matches.length));
  if (banner && !from) say([banner.title, banner.words, whole ? plural(state.view.matches.length, "match is shown", "matches are shown") : ""].filter(Boolean).join(". "));
}

function drawFacets() {
  const all = MODALITIES.reduce((sum, one) => sum + state.facets.pictures[one], 0);
  const { first, last } = state.facets.times;
  const parts = [...MODALITIES.map((one) => `${count(state.facets.pictures[one])} ${one}`), plural(state.facets.cameras.length, "camera", "cameras"), first ? days(first, last) : null];
  const whole = parts.filter(Boolean).map((part) => part.replace(/\s/g, "\u00a0").replace("–", "\u2060–\u2060")); // lines break between parts
  byId("holding").textContent = all ? whole.join(" · ") : "The gallery has no pictures yet";
  if (!all) showBanner({ icon: "none", tone: "none", title: "The gallery has no pictures yet", words: "Whoever runs the server adds them: vireid gallery build." });
  show(byId("reason-field"), state.facets.require_reason);
  filters.setFacets(state.facets);
}

// ---- History

/** Show what belongs to an entry of the browser's history. */
function showState(entry) {
  leaveSearch();
  if (state.view) state.view.scroll = window.scrollY;
  const found = entry?.key ? views.get(entry.key) : null;
  if (found) {
    state.view = found;
    filters.write(found.filter);
    if (found.stale || (!found.answer && !found.problem)) {
      refine(found);
    } else {
      draw();
      setCurrent(found.current, document.activeElement === document.body || document.activeElement === byId("back"));
      window.scrollTo(0, found.scroll || 0);
    }
  } else if (entry?.search || entry?.picture) {
    filters.write(entry.filter || NO_FILTER);
    const query = { pictures: [], picture: entry.picture, title: null };
    state.view = { ...newView(query, entry.asked), key: entry.key, depth: entry.depth };
    if (entry.search) state.view.answer = { search: entry.search, query: { modality: entry.asked, guessed: false } };
    remember(state.view);
    refine(state.view, true);
  } else {
    state.view = null;
    draw();
  }
}

/** Stop what belongs to the search that is shown. */
function leaveSearch() {
  state.running?.abort();
  state.running = null;
  clearTimeout(soon);
  stopCountdown();
  show(byId("toast"), false);
  if (compare.isOpen()) compare.closeCompare();
}

// ---- Keys, drops and dialogs

function listen() {
  listenForPictures((query, asked) => begin(newView(query, asked)));
  listenForKeys(act);
  document.addEventListener("focusin", (event) => {
    const position = positionOf(event.target);
    if (position >= 0 && state.view && position !== state.view.current) {
      state.view.current = position;
      setCurrent(position, false);
    }
  });
  byId("modality").addEventListener("change", (event) => {
    if (!state.view) return;
    state.view.asked = event.target.value;
    again();
  });
  byId("reason").addEventListener("input", () => byId("reason").removeAttribute("aria-invalid"));
  byId("reason").addEventListener("change", () => {
    if (waiting && byId("reason").value.trim()) begin(waiting);
  });
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // an address with #results would be a new step of the history
    byId("results").focus();
  });
  byId("back").addEventListener("click", () => history.back());
  byId("more").addEventListener("click", showMore);
  byId("undo").addEventListener("click", () => { show(byId("toast"), false); undo(); });
  byId("help-open").addEventListener("click", () => openDialog(byId("help")));
  byId("compare-before").addEventListener("click", () => compare.step(-1));
  byId("compare-after").addEventListener("click", () => compare.step(1));
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  for (const one of document.querySelectorAll("dialog")) one.addEventListener("close", () => document.body.append(byId("toast")));
  window.addEventListener("popstate", (event) => showState(event.state));
  window.addEventListener("hashchange", () => { if (takeToken()) location.reload(); });
}

function startHelp() {
  byId("states").replaceChildren(...Object.entries(STATES).flatMap(([word, { title, means }]) => [make("dt", { "data-tone": word }, icon(word), title), make("dd", {}, means)]));
}

async function start() {
  takeToken();
  asksWith(askForToken);
  startHelp();
  listen();
  try {
    state.facets = await answer("v1/facets", { busy: (seconds) => { byId("holding").textContent = `The server is not ready. Trying again in ${Math.ceil(seconds)} s.`; } });
    drawFacets();
  } catch (error) {
    byId("holding").textContent = "";
    showBanner({ ...problemBanner(error instanceof Problem ? error : new Problem(500, "")), buttons: [make("button", { type: "button", class: "main", onclick: () => location.reload() }, "Try again")] });
    return;
  }
  if (history.state?.key) showState(history.state);
  document.body.dataset.ready = "yes";
}

const filters = new Filters(filtersChanged);
start();
