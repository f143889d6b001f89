package check_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/sdk"
	"github.com/remora-plugins/remora/sdk/authz"
	"github.com/remora-plugins/remora/sdk/check"
	"github.com/remora-plugins/remora/sdk/client"
)

// A plugin that lets nothing pass is served, and held to what it has to do with each engine.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "no.sock")
	l, err := sdk.ListenUnix(sdk.UnixSocket{Path: socket})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	no := authz.Func(func(context.Context, *authz.Request) (authz.Decision, error) { return authz.Deny("no"), nil })
	go func() { served <- sdk.Serve(ctx, l, authz.NewHandler(no, authz.Options{})) }()

	ep := client.Endpoint{Name: "no", Addr: "unix://" + socket}
	report, err := check.Run(ctx, ep, check.Options{Only: []string{"plugin/", "authz/denied", "authz/allowed"}})
	if err != nil {
		panic(err)
	}
	fmt.Println(report.Summary())
	for _, r := range report.Results {
		if r.Outcome == check.Skipped {
			fmt.Println(r.ID, r.Reasons)
		}
	}
	stop()
	fmt.Println(<-served)
	// Output:
	// conforms: 9 passed, 1 skipped
	// authz/allowed [the plugin allows none of the requests that were tried; name one that it allows]
	// <nil>
}
