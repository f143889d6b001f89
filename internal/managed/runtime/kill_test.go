package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
)

// order is one line that the daemon of a kill test reads.
type order struct {
	Verb    string
	Plugins []Plugin
}

// daemon is the process that kill tests kill: it does what is written to its standard input, and answers each line.
func daemon(dir string) {
	l := &lab{dir: dir}
	opts := l.options()
	opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	r, err := Open(opts)
	if err != nil {
		fmt.Println(err)
		return
	}
	r.limits = fast()
	ctx := context.Background()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var o order
		err := json.Unmarshal(in.Bytes(), &o)
		if err == nil {
			switch o.Verb {
			case "adopt":
				err = r.Adopt(ctx, o.Plugins)
			case "start":
				err = r.Start(ctx, o.Plugins[0])
			case "stop":
				err = r.Stop(ctx, o.Plugins[0].ID, 0)
			}
		}
		fmt.Println(err)
	}
	fmt.Println(r.Close())
}
