// The WebSocket that the libraries expect in a browser, with a record of what goes over it.

import { WebSocket as Socket } from "ws";

/** Prints an event, one line of JSON. */
export function say(what, details = {}) {
  process.stdout.write(`${JSON.stringify({ said: what, ...details })}\n`);
}

/** The sockets that are not closed. */
export const openSockets = new Set();

globalThis.WebSocket = class extends Socket {
  constructor(url, protocols) {
    super(url, protocols);
    openSockets.add(this);
    this.on("close", () => openSockets.delete(this));
    this.on("message", (data) => say("got", { text: data.toString() }));
    // What goes wrong with a connection is told to the libraries by the close that follows.
    this.on("error", (error) => say("socket", { text: String(error) }));
  }

  send(data, ...rest) {
    say("sent", { text: data.toString() });
    super.send(data, ...rest);
  }
};

// JsSIP looks for calls of WebRTC in the window; there are none here.
globalThis.window ??= {};
