// Dofake serves a fake of DigitalOcean until it is told to stop. The line that it prints
// says where; see test/cloud/README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/remora-plugins/remora/test/cloud/do"
	"github.com/remora-plugins/remora/test/cloud/fake"
)

func main() {
	var cfg do.Config
	err := fake.Run("dofake", os.Args[1:], os.Stdout, os.Stderr, cfg.Flags, func(ctx context.Context, clock fake.Clock) (fake.Server, error) {
		if cfg.Dir == "" || len(cfg.Tokens) == 0 {
			return fake.Server{}, errors.New("-dir and -token are needed")
		}
		cfg.Clock = clock
		cloud, hosts := do.New(cfg), &fake.Hosts{}
		return fake.Server{API: cloud.Handler(), Control: cloud.Control(ctx, hosts), Hosts: hosts}, nil
	})
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "dofake:", err)
		os.Exit(1)
	}
}
