// Following what happens on the running model, for as long as somebody is signed in.

import { events, get, send } from "./api.js";
import { on, tell } from "./state.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;
const SILENCE = 40_000; // the server says something every 15 s

let stopping = null;

const pause = (wait) => new Promise((resolve) => setTimeout(resolve, wait));

/** Listens until `stop`; a server that went away is looked for again and again. */
export async function start() {
  stop();
  const mine = new AbortController();
  stopping = mine;
  let wait = FIRST_WAIT;
  let last = null;
  while (!mine.signal.aborted) {
    const began = performance.now();
    try {
      for await (const event of heard(mine.signal, last)) {
        if (event === "connected") {
          tell("connection", "connected");
        } else if (event.data) {
          last = event.id;
          tell(event.event, JSON.parse(event.data));
        }
      }
    } catch (error) {
      if (error.status === 401 || error.status === 403) return; // signed out, or never let in
    }
    if (mine.signal.aborted) return;
    // Where too many pages listen the newest takes an older one's place: not at once in turn.
    if (performance.now() - began > LONGEST_WAIT) wait = FIRST_WAIT;
    tell("connection", "reconnecting");
    await pause(wait * (0.75 + Math.random() / 2)); // not all pages at the same moment
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

export function stop() {
  stopping?.abort();
  stopping = null;
}

/** Yields `connected`, then what the server tells, heartbeats too. */
async function* heard(signal, last) {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), SILENCE);
  try {
    const response = await send("GET", "/v1/events", {
      headers: last ? { "Last-Event-ID": last } : {},
      signal: AbortSignal.any([signal, silent.signal]),
    });
    yield "connected";
    for await (const event of events(response)) {
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE);
      yield event;
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Returns an operation once it has ended: told by the events, or looked up where they fail. */
export function ended(operation) {
  return new Promise((resolve, reject) => {
    const finish = (found) => {
      if (found.id !== operation.id || !["done", "failed"].includes(found.state)) return;
      over();
      resolve(found);
    };
    const look = async () => {
      try {
        finish(await get(`/v1/operations/${operation.id}`));
      } catch (error) {
        if (error.code === "unreachable") return; // it will be asked again
        over();
        reject(error);
      }
    };
    const timer = setInterval(look, 3000);
    const leave = on("operation", finish);
    const over = () => {
      clearInterval(timer);
      leave();
    };
    look(); // it may have ended before anybody listened
  });
}
