// Asking for the token.

import { byId } from "./dom.js";
import { keepToken } from "./service.js";

let asking = null;

/** Ask people for the token; several calls may wait for the same one. */
export function askForToken(wrong) {
  asking ||= new Promise((resolve) => {
    const dialog = byId("access");
    byId("access-text").textContent = wrong
      ? "The server does not know this token. Open the address that it printed at its start, or paste the right token here."
      : "This server needs a token. Open the address that it printed at its start, or paste the token here.";
    byId("token").value = "";
    byId("token").toggleAttribute("aria-invalid", wrong);
    const again = () => { if (asking) dialog.showModal(); }; // without a token there is nothing to go back to
    dialog.addEventListener("close", again);
    byId("access-form").addEventListener("submit", (event) => {
      event.preventDefault();
      keepToken(byId("token").value);
      asking = null;
      dialog.removeEventListener("close", again);
      dialog.close();
      resolve();
    }, { once: true });
    if (!dialog.open) dialog.showModal();
  });
  return asking;
}
