/*
 * A Linphone without a screen: liblinphone behind a line protocol, for the tests of ComSIPL.
 *
 * Usage: publisher CONFIG. CONFIG is an ordinary linphonerc; registering, publishing and the account come from it.
 *
 * Commands, one per line on standard input:
 *   watch URI        add a friend, subscribe to it and let it subscribe to us
 *   forget URI       remove the friend, which ends the subscription
 *   status open      basic "open"
 *   status busy      basic "open" with the RPID activity "busy" and a note
 *   status away      basic "open" with the RPID activity "away"
 *   status closed    basic "closed", still published
 *   status offline   what an application does when its user chooses "offline": liblinphone also turns publishing off
 *   status online    what an application does when its user chooses "online" after that
 *   unpublish        publishing is turned off in the account: PUBLISH with Expires: 0
 *   network off      the device has lost its network: liblinphone gives its connections up without a word
 *   network on       it is back
 *   quit             unpublish, unsubscribe, unregister, end
 *
 * Events, one per line on standard output:
 *   registration STATE          STATE as liblinphone names it: Progress, Ok, Cleared, Failed ...
 *   presence URI STATUS BASIC NOTE
 *                               STATUS is what linphonec prints (Online, Away, Busy, Offline ...); NOTE may be empty
 *   done COMMAND                the command was carried out (the network may still be at work)
 *   error TEXT
 *
 * Between the events stand liblinphone's own log lines and, line by line, the SIP messages that it sends and receives.
 *
 * The process takes no sound device and no network monitor: the network is declared reachable, so that loopback is
 * enough.
 */

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linphone/core.h>

/* How often liblinphone's work is done, in milliseconds: Linphone's own applications use 20. */
#define ITERATE_MS 20

static const char *activity_words(LinphonePresenceActivityType type) {
	switch (type) {
		case LinphonePresenceActivityAway: return "Away";
		case LinphonePresenceActivityBusy: return "Busy";
		case LinphonePresenceActivityOnThePhone: return "OnThePhone";
		default: return "OtherActivity";
	}
}

/* The friend's state in one word: the activity decides, then the basic status. */
static const char *status_words(const LinphonePresenceModel *model) {
	if (linphone_presence_model_get_basic_status(model) == LinphonePresenceBasicStatusClosed) return "Offline";
	if (linphone_presence_model_get_nb_activities(model) == 0) return "Online";
	return activity_words(linphone_presence_activity_get_type(linphone_presence_model_get_activity(model)));
}

static const char *basic_words(const LinphonePresenceModel *model) {
	return linphone_presence_model_get_basic_status(model) == LinphonePresenceBasicStatusOpen ? "open" : "closed";
}

static void on_registration(LinphoneCore *core, LinphoneProxyConfig *account, LinphoneRegistrationState state,
                            const char *message) {
	(void)core;
	(void)account;
	(void)message;
	printf("registration %s\n", linphone_registration_state_to_string(state) + strlen("LinphoneRegistration"));
}

static void on_presence(LinphoneCore *core, LinphoneFriend *friend) {
	(void)core;
	char *uri = linphone_address_as_string_uri_only(linphone_friend_get_address(friend));
	const LinphonePresenceModel *model = linphone_friend_get_presence_model(friend);
	if (model == NULL) {
		printf("presence %s Unknown unknown \n", uri);
	} else {
		LinphonePresenceNote *note = linphone_presence_model_get_note(model, NULL);
		const char *text = note == NULL ? NULL : linphone_presence_note_get_content(note);
		printf("presence %s %s %s %s\n", uri, status_words(model), basic_words(model), text == NULL ? "" : text);
	}
	bctbx_free(uri);
}

static void watch(LinphoneCore *core, const char *uri) {
	LinphoneFriend *friend = linphone_core_create_friend_with_address(core, uri);
	if (friend == NULL) {
		printf("error not a friend's address: %s\n", uri);
		return;
	}
	linphone_friend_edit(friend);
	linphone_friend_enable_subscribes(friend, TRUE);
	linphone_friend_set_inc_subscribe_policy(friend, LinphoneSPAccept);
	linphone_friend_done(friend);
	linphone_friend_list_add_friend(linphone_core_get_default_friend_list(core), friend);
	linphone_friend_list_update_subscriptions(linphone_core_get_default_friend_list(core));
	linphone_friend_unref(friend);
}

static void forget(LinphoneCore *core, const char *uri) {
	LinphoneFriendList *list = linphone_core_get_default_friend_list(core);
	LinphoneFriend *friend = linphone_friend_list_find_friend_by_uri(list, uri);
	if (friend == NULL) {
		printf("error no such friend: %s\n", uri);
		return;
	}
	linphone_friend_list_remove_friend(list, friend);
}

static void publish_activity(LinphoneCore *core, LinphonePresenceActivityType activity, const char *note) {
	LinphonePresenceModel *model =
	    note == NULL ? linphone_core_create_presence_model_with_activity(core, activity, NULL)
	                 : linphone_core_create_presence_model_with_activity_and_note(core, activity, NULL, note, NULL);
	linphone_core_set_presence_model(core, model);
	linphone_presence_model_unref(model);
}

static void publish_basic(LinphoneCore *core, LinphonePresenceBasicStatus basic) {
	LinphonePresenceModel *model = linphone_core_create_presence_model(core);
	linphone_presence_model_set_basic_status(model, basic);
	linphone_core_set_presence_model(core, model);
	linphone_presence_model_unref(model);
}

static void unpublish(LinphoneCore *core) {
	LinphoneAccount *account = linphone_core_get_default_account(core);
	LinphoneAccountParams *params = linphone_account_params_clone(linphone_account_get_params(account));
	linphone_account_params_set_publish_enabled(params, FALSE);
	linphone_account_set_params(account, params);
	linphone_account_params_unref(params);
}

/* Carries out one command; FALSE for "quit". */
static bool_t obey(LinphoneCore *core, const char *line) {
	if (strncmp(line, "watch ", 6) == 0) watch(core, line + 6);
	else if (strncmp(line, "forget ", 7) == 0) forget(core, line + 7);
	else if (strcmp(line, "status open") == 0) publish_basic(core, LinphonePresenceBasicStatusOpen);
	else if (strcmp(line, "status closed") == 0) publish_basic(core, LinphonePresenceBasicStatusClosed);
	else if (strcmp(line, "status busy") == 0) publish_activity(core, LinphonePresenceActivityBusy, "in a meeting");
	else if (strcmp(line, "status away") == 0) publish_activity(core, LinphonePresenceActivityAway, NULL);
	else if (strcmp(line, "status offline") == 0)
		linphone_core_set_consolidated_presence(core, LinphoneConsolidatedPresenceOffline);
	else if (strcmp(line, "status online") == 0)
		linphone_core_set_consolidated_presence(core, LinphoneConsolidatedPresenceOnline);
	else if (strcmp(line, "unpublish") == 0) unpublish(core);
	else if (strcmp(line, "network off") == 0) linphone_core_set_network_reachable(core, FALSE);
	else if (strcmp(line, "network on") == 0) linphone_core_set_network_reachable(core, TRUE);
	else if (strcmp(line, "quit") == 0) return FALSE;
	else {
		printf("error unknown command: %s\n", line);
		return TRUE;
	}
	printf("done %s\n", line);
	return TRUE;
}

/* Reads what is there and obeys every whole line of it; FALSE when the work is over. */
static bool_t obey_input(LinphoneCore *core) {
	static char pending[1024];
	static size_t len;
	ssize_t got = read(STDIN_FILENO, pending + len, sizeof(pending) - 1 - len);
	if (got <= 0) return FALSE;
	len += (size_t)got;
	pending[len] = '\0';
	char *line = pending;
	for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
		*end = '\0';
		if (!obey(core, line)) return FALSE;
	}
	len = strlen(line);
	memmove(pending, line, len + 1);
	return len < sizeof(pending) - 1;
}

int main(int argc, char **argv) {
	if (argc != 2) {
		fprintf(stderr, "usage: publisher CONFIG\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	linphone_logging_service_set_log_level(linphone_logging_service_get(), LinphoneLogLevelMessage);

	LinphoneFactory *factory = linphone_factory_get();
	LinphoneCore *core = linphone_factory_create_core_3(factory, argv[1], NULL, NULL);
	LinphoneCoreCbs *callbacks = linphone_factory_create_core_cbs(factory);
	linphone_core_cbs_set_registration_state_changed(callbacks, on_registration);
	linphone_core_cbs_set_notify_presence_received(callbacks, on_presence);
	linphone_core_add_callbacks(core, callbacks);
	linphone_core_cbs_unref(callbacks);
	if (linphone_core_start(core) != 0) {
		printf("error liblinphone does not start\n");
		return 1;
	}
	linphone_core_set_user_agent(core, "Linphone", linphone_core_get_version());
	linphone_core_set_network_reachable(core, TRUE);

	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	for (bool_t working = TRUE; working;) {
		linphone_core_iterate(core);
		if (poll(&input, 1, ITERATE_MS) > 0) working = obey_input(core);
	}
	linphone_core_stop(core);
	linphone_core_unref(core);
	printf("done quit\n");
	return 0;
}
