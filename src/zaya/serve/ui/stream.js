// Server-sent events over fetch: EventSource can neither post nor send a key.

import { ApiError } from "./api.js";

/** The JSON objects of a stream that [DONE] closes. Raises ApiError for an error among them, or an end before it. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(lost);
      if (done) break;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        if (!part.startsWith("data: ")) continue; // a comment: still here
        const data = part.slice(6);
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(String(event.error.message), { status: 200 });
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new ApiError("The connection ended before the answer did.");
}

function lost(error) {
  if (error.name === "AbortError") throw error;
  throw new ApiError("The connection to the server was lost.");
}
