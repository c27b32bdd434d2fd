// Talking to the server. The token lives in this tab's sessionStorage: not in a cookie, which other
// sites could make the browser send, and not in localStorage, where it would outlive the tab.

import { tell } from "./state.js";

const PLACE = "editkit.token";

export const token = {
  get: () => sessionStorage.getItem(PLACE),
  set: (value) => sessionStorage.setItem(PLACE, value),
  clear: () => sessionStorage.removeItem(PLACE),
};

/** What the server refused, or that it cannot be reached (`code` is then `unreachable`). */
export class Failure extends Error {
  constructor({ message, code = null, hint = null }, status = 0) {
    super(message);
    Object.assign(this, { code, hint, status });
  }
}

/** Sends a request; returns the response, or throws what is wrong with it. */
export async function send(method, path, { body, headers = {}, signal } = {}) {
  const given = { ...headers };
  const mine = token.get();
  if (mine) given.Authorization = `Bearer ${mine}`;
  if (body !== undefined) given["Content-Type"] = "application/json";
  let response;
  try {
    const text = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(path, { method, headers: given, body: text, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure({
      message: "The server cannot be reached.", code: "unreachable",
      hint: "This page goes on by itself when the server is back.",
    });
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  const failure = new Failure(
    said?.error ?? { message: `The server answered ${response.status}.` }, response.status,
  );
  // What an earlier token is refused late is nothing to the session of the next.
  if (failure.status === 401 && token.get() === mine) tell("out", failure);
  throw failure;
}

export const get = async (path, how) => (await send("GET", path, how)).json();

export const post = async (path, body, how) => (await send("POST", path, { body, ...how })).json();

/** Yields the server-sent events of a response; EventSource itself cannot send a token. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const found = { event: "message", data: "", id: null };
        for (const line of block.split("\n")) {
          const at = line.indexOf(": ");
          if (at > 0) found[line.slice(0, at)] = line.slice(at + 2);
        }
        yield found; // a heartbeat has no data
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
