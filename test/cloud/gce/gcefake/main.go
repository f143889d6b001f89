// Gcefake serves a fake of Google's compute API until it is told to stop. The line that it
// prints says where; see test/cloud/README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/remora-plugins/remora/test/cloud/fake"
	"github.com/remora-plugins/remora/test/cloud/gce"
)

func main() {
	var cfg gce.Config
	err := fake.Run("gcefake", os.Args[1:], os.Stdout, os.Stderr, cfg.Flags, func(ctx context.Context, clock fake.Clock) (fake.Server, error) {
		if cfg.Dir == "" {
			return fake.Server{}, errors.New("-dir is needed")
		}
		cfg.Clock = clock
		cloud, hosts := gce.New(cfg), &fake.Hosts{}
		return fake.Server{API: cloud.Handler(), Control: cloud.Control(ctx, hosts), Hosts: hosts}, nil
	})
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gcefake:", err)
		os.Exit(1)
	}
}
