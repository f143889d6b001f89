// Command authz is a whole authorization plugin: whoever is no operator may look at an
// engine, and change nothing.
//
//	authz -name readonly -operators alice,bob
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
	"os/signal"
	"slices"
	"strings"
	"syscall"

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
		if r.AuthMethod == "TLS" && slices.Contains(operators, r.User) || slices.ContainsFunc(allowed, r.Match) {
			return authz.Allow(), nil
		}
		return authz.Deny(fmt.Sprintf("only operators may %s %s", r.Method, r.Path)), nil
	}
}

func run(ctx context.Context) error {
	name := flag.String("name", "readonly", "`name` of the plugin, by which engines find it")
	operators := flag.String("operators", "", "`names`, with commas between, of those who may do anything")
	flag.Parse()
	users := strings.FieldsFunc(*operators, func(r rune) bool { return r == ',' })

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	l, err := sdk.ListenUnix(sdk.UnixSocket{Name: *name})
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "listening", "socket", l.Addr().String())
	return sdk.Serve(ctx, l, authz.NewHandler(readOnly(users), authz.Options{Logger: log}))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "authz:", err)
		os.Exit(1)
	}
}
