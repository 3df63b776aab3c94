// The HTTP API from a browser: the key with every request, problems as errors, and a stream that is never lost.

const KEY = "rollover-api-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

/** What the server refused: its problem document (RFC 9457). */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? `The server answered ${status}.`);
    this.status = status;
    this.code = document.code;
    this.errors = document.errors ?? [];
  }
}

async function send(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (options.body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { ...options, headers });
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export const get = async (path) => (await send(path)).json();
export const post = async (path, body) => (await send(path, { method: "POST", body: JSON.stringify(body ?? {}) })).json();
export const remove = (path) => send(path, { method: "DELETE" });

/** A picture or a file as an object URL: an <img> of its own would send no key. */
export const fetched = async (path) => URL.createObjectURL(await (await send(path)).blob());

/** Yield every event of a generation from the first to the final one, over as many connections as it takes. */
export async function* events(path, signal) {
  let last = 0;
  while (true) {
    try {
      const answer = await send(path, { signal, headers: last ? { "Last-Event-ID": String(last) } : {} });
      if (answer.status === 204) return;
      for await (const event of messages(answer.body)) {
        last = event.seq;
        yield event;
        if (["completed", "failed", "canceled"].includes(event.type)) return;
      }
    } catch (error) {
      // A problem is the server's word; anything else is a connection that broke.
      if (signal.aborted || (error instanceof Problem && error.status < 500)) throw error;
    }
    await new Promise((again) => setTimeout(again, 1000));
  }
}

/** The JSON of each `data:` line. */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield JSON.parse(line.slice(5));
  }
}
