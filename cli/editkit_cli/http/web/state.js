// What the parts of the page share: who is signed in, where the history stands, and what happens.

const ROLES = ["read", "edit", "admin"];

/** `who` is /v1/whoami's answer, `status` /v1/status's. */
export const state = { who: null, status: null };

/** Whether the token allows what needs this role. */
export const may = (role) => ROLES.indexOf(state.who?.role) >= ROLES.indexOf(role);

const listeners = new Map();

/** Listens to what happens: `operation`, `learning`, `version`, `status`, `connection`, `out`. */
export function on(kind, act) {
  listeners.set(kind, [...(listeners.get(kind) ?? []), act]);
  return () => listeners.set(kind, listeners.get(kind).filter((one) => one !== act));
}

export function tell(kind, data) {
  for (const act of listeners.get(kind) ?? []) act(data);
}
