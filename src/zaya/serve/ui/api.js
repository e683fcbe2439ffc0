// Requests to the server that gave us this page. A 401 asks for the key, and then goes on.

import { key } from "./store.js";

/** What the server says went wrong, or that it says nothing. */
export class ApiError extends Error {
  constructor(message, { status = 0, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    /** Seconds after which to come again. */
    this.retryAfter = retryAfter;
  }
}

let askForKey = async () => null;

/** `ask` gets the server's words and gives a key, or null. */
export function whenKeyIsNeeded(ask) {
  askForKey = ask;
}

/** The answer, once it is a good one. Raises ApiError, and AbortError for what was stopped. */
export async function request(path, { body, signal } = {}) {
  for (;;) {
    const used = key.get();
    const answer = await send(path, body, signal, used);
    if (answer.ok) return answer;
    const error = await explained(answer);
    if (answer.status !== 401) throw error;
    if (key.get() === used && (await askForKey(error.message)) === null) throw error;
  }
}

async function send(path, body, signal, used) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (used) headers.Authorization = `Bearer ${used}`;
  try {
    return await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      body: body === undefined ? undefined : JSON.stringify(body),
      headers,
      signal,
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(`The server at ${location.host} does not answer. Is it running?`);
  }
}

async function explained(answer) {
  let message = `The server answered ${answer.status}.`;
  try {
    message = String((await answer.json()).error.message);
  } catch {
    // somebody in between answered
  }
  const seconds = Number.parseInt(answer.headers.get("Retry-After") ?? "", 10);
  return new ApiError(message, { status: answer.status, retryAfter: Number.isFinite(seconds) ? seconds : null });
}
