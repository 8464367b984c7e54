// Calls to the server: the token, errors, waiting when it is busy, and thumbnails.

const KEY = "vireid-token";
const TRIES = 8;
const LONGEST = 60; // seconds between two tries
const KEPT = 600; // thumbnails in memory

/** An answer that is no success. status 0: there was no answer. */
export class Problem extends Error {
  constructor(status, detail, type = "") {
    super(detail);
    this.status = status;
    this.detail = detail;
    this.word = type.split(":").pop();
  }
}

export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";

/** Take the token out of the address, so that it is in no bookmark, history or screenshot. */
export function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found !== null) {
    keepToken(found);
    history.replaceState(history.state, "", location.pathname + location.search);
  }
  return found !== null;
}

let token = null;

export function keepToken(text) {
  token = text.trim();
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // A browser without storage forgets it at the next load.
  }
}

function currentToken() {
  if (token === null) {
    try {
      token = sessionStorage.getItem(KEY) || "";
    } catch {
      token = "";
    }
  }
  return token;
}

let askToken = async () => {
  throw new Problem(401, "The server asks for a token.");
};

/** What asks people for a token: an async function (was the last one wrong?) that ends when one was kept. */
export function asksWith(ask) {
  askToken = ask;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

async function problemOf(response) {
  let detail = "";
  let type = "";
  try {
    const body = await response.json();
    detail = typeof body.detail === "string" ? body.detail : "";
    type = typeof body.type === "string" ? body.type : "";
  } catch {
    // Not JSON: something between this page and the server answered.
  }
  return new Problem(response.status, detail, type);
}

/**
 * Ask the server.
 *
 * @param path the address below this page's, without a leading slash
 * @param options method, json (a value) or form (FormData), signal, and busy: called with the seconds of each wait
 * @returns the response, which is a success
 * @throws Problem, or an AbortError when the signal stopped it
 */
export async function call(path, { method = "GET", json, form, signal, busy = () => {} } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const used = currentToken();
    const headers = {};
    if (used) headers.Authorization = `Bearer ${used}`;
    if (json !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      const body = json === undefined ? form : JSON.stringify(json);
      response = await fetch(path, { method, headers, body, signal, cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (isAbort(error)) throw error;
      if (/[^\x20-\x7e]/.test(used)) response = new Response(null, { status: 401 }); // no header can hold this token
      else throw new Problem(0, "");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      if (used === currentToken()) await askToken(used !== "");
      continue;
    }
    const problem = await problemOf(response);
    const waits = response.status === 429 || response.status === 503;
    if (!waits || attempt === TRIES) throw problem;
    const asked = Number.parseFloat(response.headers.get("Retry-After"));
    const seconds = Math.min(LONGEST, Math.max(1, Number.isFinite(asked) ? asked : 2 ** attempt));
    busy(seconds);
    await pause(seconds, signal);
  }
}

export const answer = async (path, options) => (await call(path, options)).json();

const thumbnails = new Map(); // id → promise of an object URL, the oldest first

/** The object URL of a thumbnail. Pictures cannot send the token themselves, so it is fetched. */
export function thumbnail(id) {
  let found = thumbnails.get(id);
  if (found) {
    thumbnails.delete(id);
  } else {
    found = call(`v1/pictures/${encodeURIComponent(id)}/thumbnail`)
      .then((response) => response.blob())
      .then((blob) => URL.createObjectURL(blob));
    found.catch(() => thumbnails.delete(id));
  }
  thumbnails.set(id, found);
  if (thumbnails.size > KEPT) {
    const [oldest, url] = thumbnails.entries().next().value;
    thumbnails.delete(oldest);
    url.then(URL.revokeObjectURL, () => {});
  }
  return found;
}
