// The picture that is searched with: how it gets into the page, and how it is shown.

import { byId, foreign, icon, make, show } from "./dom.js";
import { toast } from "./judgements.js";
import { cut, prepared } from "./pictures.js";
import { fillFrame } from "./results.js";
import { Problem } from "./service.js";
import { state } from "./state.js";
import { named, plural } from "./words.js";

const WIDE = "(min-width: 860px)"; // as in page.css

let search = () => {}; // starts a search
let offered = false; // whether filters were opened once, where there is room for them

/** Show the pictures of a search, or the place for the first one. */
export function drawQuery(one) {
  const place = byId("query-pictures");
  const started = one !== null;
  byId("query-title").textContent = started ? "Your picture" : "Where was this person seen?";
  byId("choose").textContent = started ? "New picture" : "Choose a picture";
  show(byId("query-facts"), started);
  show(byId("add"), started && one.query.pictures.length > 0);
  show(byId("cut-one"), started && one.query.pictures.length === 1);
  place.replaceChildren();
  if (!started) return;
  if (!offered && matchMedia(WIDE).matches) byId("filters").open = true;
  offered = true;
  if (one.query.picture) {
    const frame = make("span", { class: "frame" });
    fillFrame(frame, one.query.picture, one.query.title ? named(one.query.title) : "picture of the gallery");
    place.append(make("li", {}, frame));
  }
  one.query.pictures.forEach((picture, n) => place.append(queryPicture(picture, n, one.query.pictures.length)));
  if (!place.children.length) place.append(make("li", {}, make("span", { class: "frame" }, make("span", { class: "missing" }, icon("person"), "not in this tab any more"))));
  drawModality(one);
}

function queryPicture(picture, n, all) {
  const name = all > 1 ? `picture ${n + 1}` : "your picture";
  const frame = make("span", { class: "frame" }, make("img", { src: picture.url, alt: name }));
  if (all === 1) return make("li", {}, frame);
  const buttons = make("span", { class: "query-buttons" }, make("button", { type: "button", class: "plain", onclick: () => cutPicture(n) }, "Cut", make("span", { class: "hidden" }, ` ${name} to one person`)));
  buttons.append(make("button", { type: "button", class: "plain", onclick: () => removePicture(n) }, "Remove", make("span", { class: "hidden" }, ` ${name}`)));
  return make("li", {}, frame, buttons);
}

function drawModality(one) {
  const select = byId("modality");
  const found = one.answer?.query;
  const inside = Boolean(one.query.picture);
  select.value = found ? found.modality : one.asked;
  select.disabled = inside || (!one.query.pictures.length);
  const note = byId("guessed");
  note.replaceChildren();
  if (inside) {
    note.append("A picture of the gallery");
    if (one.query.title) note.append(", camera ", foreign(one.query.title.camera));
    note.append(".");
  } else if (found?.guessed) {
    note.append("Guessed from its colours. Change it if it is wrong.");
  }
  if (one.query.pictures.some((picture) => picture.wide)) note.append(make("b", { class: "block" }, "The picture is wide. Cut it to one person: the model knows pictures from head to feet."));
}

async function takeFiles(files, adding = false) {
  const chosen = [...files];
  if (!chosen.length) return;
  try {
    const ready = await Promise.all(chosen.map(prepared));
    const before = adding && state.view ? state.view.query.pictures : [];
    const pictures = [...before, ...ready];
    const most = state.facets?.limits?.pictures || 8;
    if (pictures.length > most) throw new Problem(413, `A search takes up to ${plural(most, "picture", "pictures")} of one person.`);
    search({ pictures, picture: null, title: null }, adding && state.view ? state.view.asked : "auto");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    toast(error.detail);
  }
}

async function cutPicture(place) {
  const one = state.view;
  const part = await cut(one.query.pictures[place]);
  if (!part) return;
  const pictures = one.query.pictures.map((picture, n) => (n === place ? part : picture));
  search({ pictures, picture: null, title: null }, one.asked);
}

function removePicture(place) {
  const pictures = state.view.query.pictures.filter((_, n) => n !== place);
  search({ pictures, picture: null, title: null }, state.view.asked);
}

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

function onDrop(event) {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (!document.querySelector("dialog[open]")) takeFiles([...event.dataTransfer.files]);
}

/** @param start called with a query and its modality when people give pictures by any way */
export function listenForPictures(start) {
  search = start;
  byId("choose").addEventListener("click", () => { byId("file").dataset.adding = ""; byId("file").click(); });
  byId("add").addEventListener("click", () => { byId("file").dataset.adding = "yes"; byId("file").click(); });
  byId("cut-one").addEventListener("click", () => cutPicture(0));
  byId("photo").addEventListener("click", () => byId("file-photo").click());
  for (const input of [byId("file"), byId("file-photo")]) {
    input.addEventListener("change", () => {
      const files = [...input.files];
      input.value = ""; // so that the same file can be chosen again
      takeFiles(files, input.dataset.adding === "yes");
    });
  }
  window.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  window.addEventListener("drop", onDrop);
  window.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])];
    if (files.length && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      takeFiles(files);
    }
  });
}
