// Pictures that people choose: made smaller if they are too large to send, and cut to one person.

import { byId, openDialog } from "./dom.js";
import { Problem } from "./service.js";

const PIXELS = 12e6; // of a picture that was made smaller; the server takes up to 20 million
const LARGE = 4e6; // bytes of one picture above which it is made smaller
const FORMATS = new Set(["image/jpeg", "image/png", "image/webp", "image/bmp"]);
const WIDE = 0.8; // width / height above which a picture is hardly cut to one standing person

async function bitmapOf(blob) {
  try {
    return await createImageBitmap(blob);
  } catch {
    throw new Problem(415, "This browser cannot read the file as a picture.");
  }
}

function drawn(source, left, top, width, height, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(source, left, top, width, height, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.95); });
}

/** A picture that the server takes: { blob, url, wide }. Its pixels stay as they are unless there are too many. */
export async function prepared(file) {
  let blob = file;
  let wide = false;
  if (file.size > 0) {
    const bitmap = await bitmapOf(file);
    wide = bitmap.width / bitmap.height > WIDE;
    const pixels = bitmap.width * bitmap.height;
    if (file.size > LARGE || pixels > PIXELS || !FORMATS.has(file.type)) {
      blob = await drawn(bitmap, 0, 0, bitmap.width, bitmap.height, Math.min(1, Math.sqrt(PIXELS / pixels)));
    }
    bitmap.close();
  } else {
    throw new Problem(415, "The file is empty.");
  }
  return { blob, url: URL.createObjectURL(blob), wide };
}

const STAGE = 900; // longer side of the picture on the screen, in pixels of the canvas
const EDGES = ["left", "right", "top", "bottom"];
const LEAST = 0.02; // of the width and the height that must stay

/** Let people cut a picture. Gives the part as a picture, or null if they cancel. */
export async function cut(picture) {
  const bitmap = await bitmapOf(picture.blob);
  const dialog = byId("cut");
  const canvas = byId("cut-canvas");
  const box = { left: 0, right: 1, top: 0, bottom: 1 };
  const scale = Math.min(STAGE / bitmap.width, STAGE / bitmap.height);
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  const draw = () => drawBox(canvas, bitmap, box);
  const stopped = new AbortController();
  const { signal } = stopped;
  for (const edge of EDGES) {
    byId(`cut-${edge}`).addEventListener("input", (event) => {
      moveEdge(box, edge, Number(event.target.value) / 1000);
      draw();
    }, { signal });
  }
  followPointer(canvas, box, draw, signal);
  draw();
  openDialog(dialog);
  const done = await new Promise((resolve) => {
    byId("cut-done").addEventListener("click", () => { resolve(true); dialog.close(); }, { signal });
    dialog.addEventListener("close", () => resolve(false), { signal });
  });
  stopped.abort();
  if (!done) return null;
  const width = (box.right - box.left) * bitmap.width;
  const height = (box.bottom - box.top) * bitmap.height;
  const blob = await drawn(bitmap, box.left * bitmap.width, box.top * bitmap.height, width, height, 1);
  return { blob, url: URL.createObjectURL(blob), wide: width / height > WIDE };
}

function moveEdge(box, edge, value) {
  const limits = { left: [0, box.right - LEAST], right: [box.left + LEAST, 1], top: [0, box.bottom - LEAST], bottom: [box.top + LEAST, 1] };
  const [least, most] = limits[edge];
  box[edge] = Math.min(most, Math.max(least, value));
}

function drawBox(canvas, bitmap, box) {
  const { width, height } = canvas;
  const pen = canvas.getContext("2d");
  const [x, y] = [box.left * width, box.top * height];
  const [w, h] = [(box.right - box.left) * width, (box.bottom - box.top) * height];
  pen.drawImage(bitmap, 0, 0, width, height);
  pen.fillStyle = "rgba(10, 14, 20, 0.62)";
  pen.beginPath();
  pen.rect(0, 0, width, height);
  pen.rect(x, y, w, h);
  pen.fill("evenodd");
  pen.lineWidth = 3;
  pen.strokeStyle = "#fff";
  pen.strokeRect(x, y, w, h);
  pen.lineWidth = 1;
  pen.strokeStyle = "#000";
  pen.strokeRect(x, y, w, h);
  for (const edge of EDGES) byId(`cut-${edge}`).value = Math.round(box[edge] * 1000);
}

function followPointer(canvas, box, draw, signal) {
  let start = null;
  const place = (event) => {
    const frame = canvas.getBoundingClientRect();
    const inside = (value) => Math.min(1, Math.max(0, value));
    return [inside((event.clientX - frame.left) / frame.width), inside((event.clientY - frame.top) / frame.height)];
  };
  canvas.addEventListener("pointerdown", (event) => {
    start = place(event);
    canvas.setPointerCapture(event.pointerId);
  }, { signal });
  canvas.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = place(event);
    if (Math.abs(x - start[0]) < LEAST || Math.abs(y - start[1]) < LEAST) return;
    Object.assign(box, { left: Math.min(x, start[0]), right: Math.max(x, start[0]), top: Math.min(y, start[1]), bottom: Math.max(y, start[1]) });
    draw();
  }, { signal });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { start = null; }, { signal });
}
