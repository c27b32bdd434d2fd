// Signing in: by the key of a link, by the token that this tab holds already, or by one typed in.

import { get, post, token } from "./api.js";
import { byId } from "./dom.js";
import { start, stop } from "./live.js";
import { on, state, tell } from "./state.js";

/** Shows the page to whoever may see it, and the door to everybody else. */
export function begin() {
  byId("signin").addEventListener("submit", (event) => {
    event.preventDefault();
    token.set(byId("token").value.trim());
    byId("token").value = "";
    enter();
  });
  byId("leave").addEventListener("click", () => {
    token.clear();
    location.reload(); // nothing that was shown stays
  });
  on("out", (failure) => {
    token.clear();
    shut(failure);
  });
  // A new link opened in this tab changes nothing but what is behind the `#`.
  window.addEventListener("hashchange", arrive);
  arrive();
}

async function arrive() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key === null) {
    if (state.who === null) enter();
    return;
  }
  // Before anything else: the address bar must not keep it.
  history.replaceState(null, "", location.pathname);
  try {
    token.set((await post("/v1/session", { key })).token);
  } catch (failure) {
    if (token.get() === null) shut(failure); // a page that was open already stays so
    if (state.who !== null) return;
  }
  enter();
}

async function enter() {
  const mine = token.get();
  if (mine === null) {
    shut(null);
    return;
  }
  try {
    const who = await get("/v1/whoami");
    const status = await get("/v1/status");
    if (token.get() !== mine) return;
    Object.assign(state, { who, status });
  } catch (failure) {
    // A refused token was cleared and told already; another one entered since goes on.
    if (token.get() === mine) shut(failure);
    return;
  }
  byId("door").hidden = true;
  for (const name of ["house", "panes", "leave"]) byId(name).hidden = false;
  tell("in", state.who);
  start();
}

function shut(failure) {
  stop();
  state.who = null;
  tell("connection", "out");
  for (const name of ["house", "panes", "leave"]) byId(name).hidden = true;
  const said = byId("doorsaid");
  if (byId("door").hidden || failure !== null) {
    said.textContent = failure === null ? "" : reason(failure);
  }
  byId("door").hidden = false;
  byId("token").focus();
}

function reason(failure) {
  if (failure.status === 401) {
    return "The token is not valid here: it was mistyped or revoked, or the server was started "
      + "again.";
  }
  return [failure.message, failure.hint].filter(Boolean).join(" ");
}
