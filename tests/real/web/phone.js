// A web phone for tests/real_clients.rs: SIP.js or JsSIP over a WebSocket, driven by lines of JSON.
//
//   node phone.js '{"library": "sip.js", "url": "ws://…", "uri": "sip:dora@…", "password": "…", "contactName": "…"}'
//
// Commands come as lines on standard input, each an object with "do":
//
//   watch {event, uri, accept}           subscribes
//   publish {event, type, body}          publishes, or modifies what was published (SIP.js only; JsSIP cannot)
//   unpublish {event}                    takes it back
//   drop                                 breaks the connection without a word, then makes another and registers on it
//   quit                                 ends
//
// What happens comes as lines on standard output, each an object with "said":
//
//   registered                           the registration was accepted
//   notified {event, state, type, body}  a NOTIFY was accepted; state is its Subscription-State
//   done {do}                            the command was obeyed (its effect may still be on its way)
//   sent, got {text}                     a SIP message as it went over the socket
//   error {text}

import readline from "node:readline";

import { openSockets, say } from "./socket.js";

const config = JSON.parse(process.argv[2]);
const libraries = { "sip.js": "./sipjs.js", jssip: "./jssip.js" };
const { Phone } = await import(libraries[config.library]);
const phone = new Phone(config);
await phone.start();

const commands = {
  watch: (command) => phone.watch(command),
  publish: (command) => phone.publish(command),
  unpublish: (command) => phone.unpublish(command),
  drop: () => openSockets.forEach((socket) => socket.terminate()),
  quit: () => process.exit(0),
};

// A test that has died closes our input, and the phone ends with it.
for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    await commands[command.do](command);
    say("done", { do: command.do });
  } catch (error) {
    say("error", { text: String(error) });
  }
}
process.exit(0);
