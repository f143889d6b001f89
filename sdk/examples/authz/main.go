// Command authz is a whole authorization plugin: whoever is no operator may look at an
// engine, and change nothing.
//
//	authz start -operators alice,bob
//	dockerd --authorization-plugin=readonly …
//
// An operator is who comes by TLS with a certificate of that name. Nobody on the unix
// socket has a name, so this plugin makes the socket read-only as well.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/authz"
)

// reads is what only looks. Not on it, though they begin with GET: archive and export,
// which read any file of a container, and attach, which writes to it.
func reads() []string {
	return []string{
		"GET,HEAD /_ping", "GET /version", "GET /info", "GET /events", "GET /system/df",
		"GET /containers/json", "GET /containers/*/json", "GET /containers/*/top", "GET /containers/*/logs",
		"GET /containers/*/stats", "GET /containers/*/changes", "POST /containers/*/wait",
		"GET /images/json", "GET /images/*/json", "GET /images/*/history",
		"GET /networks", "GET /networks/*", "GET /volumes", "GET /volumes/*", "GET /plugins", "GET /plugins/*/json",
	}
}

// readOnly returns an authorizer that lets operators do anything and others read.
func readOnly(operators []string) authz.Func {
	allowed := reads()
	return func(_ context.Context, r *authz.Request) (authz.Decision, error) {
		if r.User != "" && slices.Contains(operators, r.User) || slices.ContainsFunc(allowed, r.Match) {
			return authz.Allow(), nil
		}
		return authz.Deny(fmt.Sprintf("only operators may %s %s", r.Method, r.Path)), nil
	}
}

func main() {
	operators := flag.String("operators", "", "`names`, with commas between, of those who may do anything")
	os.Exit(sdk.Main("readonly", func(_ context.Context, log *slog.Logger) (sdk.Plugin, error) {
		return authz.NewHandler(readOnly(strings.Split(*operators, ",")), authz.Options{Logger: log}), nil
	}))
}
