// A web phone made of SIP.js.

import { Publisher, Registerer, RegistererState, Subscriber, UserAgent } from "sip.js";

import { say } from "./socket.js";

export class Phone {
  constructor({ url, uri, user, password, contactName }) {
    this.agent = new UserAgent({
      uri: UserAgent.makeURI(uri),
      transportOptions: { server: url, keepAliveInterval: 0 },
      authorizationUsername: user,
      authorizationPassword: password,
      contactName,
      // A web phone does not know its address: RFC 7118 lets it write a name that nobody can look up.
      viaHost: `${contactName}.invalid`,
      logBuiltinEnabled: false,
      delegate: { onDisconnect: () => this.connectAgain() },
    });
    this.registerer = new Registerer(this.agent, { expires: 600 });
    this.registerer.stateChange.addListener((state) => {
      if (state === RegistererState.Registered) say("registered");
    });
    this.publishers = new Map();
    this.subscribers = [];
  }

  async start() {
    await this.agent.start();
    await this.registerer.register({ requestDelegate: { onReject: refused } });
  }

  async connectAgain() {
    await this.agent.reconnect();
    // The registerer takes itself for registered still and tells no change.
    await this.registerer.register({
      requestDelegate: { onAccept: () => say("registered"), onReject: refused },
    });
  }

  async watch({ event, uri, accept }) {
    const subscriber = new Subscriber(this.agent, UserAgent.makeURI(uri), event, {
      expires: 600,
      extraHeaders: [`Accept: ${accept}`],
    });
    subscriber.delegate = {
      onNotify: (notification) => {
        const { request } = notification;
        say("notified", {
          event: request.getHeader("Event"),
          state: request.getHeader("Subscription-State"),
          type: request.getHeader("Content-Type"),
          body: request.body,
        });
        notification.accept();
      },
    };
    this.subscribers.push(subscriber);
    await subscriber.subscribe();
  }

  async publish({ event, type, body }) {
    let publisher = this.publishers.get(event);
    if (publisher === undefined) {
      publisher = new Publisher(this.agent, this.agent.configuration.uri, event, {
        body,
        contentType: type,
        expires: 600,
      });
      this.publishers.set(event, publisher);
    }
    await publisher.publish(body);
  }

  async unpublish({ event }) {
    await this.publishers.get(event).unpublish();
  }
}

function refused({ message }) {
  say("error", { text: `${message.statusCode} to REGISTER` });
}
