// A web phone made of JsSIP. It connects and registers again by itself.

import JsSIP from "jssip";

import { say } from "./socket.js";

export class Phone {
  constructor({ url, uri, user, password, contactName }) {
    this.agent = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(url)],
      uri,
      authorization_user: user,
      password,
      // A web phone does not know its address: RFC 7118 lets it write a name that nobody can look up.
      contact_uri: `sip:${contactName}@${contactName}.invalid;transport=ws`,
      register_expires: 600,
      connection_recovery_min_interval: 1,
      connection_recovery_max_interval: 1,
    });
    this.agent.on("registered", () => say("registered"));
    this.agent.on("registrationFailed", ({ cause, response }) => {
      if (response) say("error", { text: `${response.status_code} to REGISTER: ${cause}` });
    });
  }

  async start() {
    this.agent.start();
  }

  async watch({ event, uri, accept }) {
    const subscriber = this.agent.subscribe(uri, event, accept, { expires: 600 });
    subscriber.on("notify", (_final, request, body, type) => {
      say("notified", {
        event: request.getHeader("Event"),
        state: request.getHeader("Subscription-State"),
        type,
        body,
      });
    });
    subscriber.on("terminated", (code, reason) => say("terminated", { event, code, reason }));
    subscriber.subscribe();
  }

  async publish() {
    throw new Error("JsSIP does not publish");
  }

  async unpublish() {
    throw new Error("JsSIP does not publish");
  }
}
