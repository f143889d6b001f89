package cli

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// pruneFlags say which volumes are meant.
type pruneFlags struct {
	pool    string
	older   age
	labels  []label
	engines []string
}

func (a *app) volumePrune() *cobra.Command {
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove the volumes that no container has",
		Long: "Remove the volumes that no container has, running or stopped, which \"docker volume prune\"\n" +
			"never does with those of plugins. The engines of this host are asked, those of engine.sockets\n" +
			"or Docker and Podman; what is mounted or protected stays. What is to go is listed first; then on\n" +
			"a terminal it asks, and elsewhere wants --yes. Where the driver has a trash they come into it, and \"remora undo\" brings them back.",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	var flags pruneFlags
	pool := a.poolFlag(cmd, "all")
	cmd.Flags().Var(&flags.older, "older", "only what was made longer ago, such as 12h or 30d")
	cmd.Flags().FuncP("label", "l", "only what has the label `KEY[=VALUE]` in an engine; may be repeated", func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if key == "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q: want KEY or KEY=VALUE", s)
		}
		flags.labels = append(flags.labels, label{key, value, !ok})
		return nil
	})
	cmd.Flags().StringArrayVar(&flags.engines, "engine", nil, "`socket` of an engine to ask in place of engine.sockets, or Docker's and Podman's; may be repeated; \"none\" asks nobody")
	f := formatFlag(cmd)
	dry := cmd.Flags().BoolP("dry-run", "n", false, "list them and do nothing")
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		flags.pool = *pool
		unused, kept, err := a.unused(cmd.Context(), c, flags)
		if err != nil {
			return err
		}
		if *f == "json" && *dry {
			return a.printJSON(append([]control.Volume{}, unused...))
		}
		if len(unused) == 0 {
			a.sayf("no volume to remove\n")
			if *f == "json" {
				return a.printJSON([]control.Volume{})
			}
			return nil
		}
		out := a.Stderr // the result is what is removed
		if *dry {
			out = a.Stdout
		}
		rows := make([][]string, 0, len(unused))
		for _, v := range unused {
			rows = append(rows, []string{v.Pool, v.Name, ago(v.CreatedAt), limitOf(v), usedOf(v), snapshotsOf(v)})
		}
		err = tableTo(out, []string{"POOL", "VOLUME", "CREATED", "SIZE", "USED", "SNAPSHOTS"}, rows)
		if err != nil || *dry {
			return err
		}
		if !*yes {
			question := fmt.Sprintf("Remove these %d volumes and all data in them?", len(unused))
			if n := forGood(unused, kept); n > 0 {
				question += fmt.Sprintf(" There is no undo for %d of them.", n)
			}
			if err := a.confirm(cmd, question); err != nil {
				return err
			}
		}
		meant, names := map[string]control.Volume{}, make([]string, 0, len(unused))
		for _, v := range unused {
			key := v.Pool + "/" + v.Name
			meant[key] = v
			names = append(names, key)
		}
		removed := []control.Volume{}
		err = a.each(names, func(key string) error {
			v := meant[key]
			if err := c.Volumes().Remove(cmd.Context(), control.VolumeRemoveRequest{Pool: v.Pool, Name: v.Name}); err != nil {
				return err
			}
			if *f == "json" {
				removed = append(removed, v)
				return nil
			}
			return a.printf("%s\n", v.Name)
		})
		if *f == "json" {
			return errdefs.Join(a.printJSON(removed), err)
		}
		return err
	}
	return cmd
}

// forGood counts the volumes of pools that keep nothing in a trash.
func forGood(all []control.Volume, kept map[string]bool) (n int) {
	for _, v := range all {
		if !kept[v.Pool] {
			n++
		}
	}
	return n
}

// unused returns the volumes that are meant and that nobody has, and the pools whose volumes
// can be brought back.
func (a *app) unused(ctx context.Context, c *control.Client, flags pruneFlags) (unused []control.Volume, kept map[string]bool, err error) {
	status, err := c.Status(ctx)
	if err != nil {
		return nil, nil, err
	}
	kept = map[string]bool{}
	for _, p := range status.Pools {
		kept[p.Name] = p.Trash
	}
	engines, err := a.engines(flags.engines, status.Pools)
	if err != nil {
		return nil, nil, err
	}
	// The volumes are listed before the containers: one that is made in between, for a
	// container, is not among them.
	all, err := c.Volumes().List(ctx, control.VolumeListRequest{Pool: flags.pool, Usage: true})
	if err != nil {
		return nil, nil, err
	}
	used, labels := map[string]bool{}, map[[2]string]map[string]string{}
	for _, e := range engines {
		names, err := e.used(ctx)
		if err != nil {
			return nil, nil, err
		}
		maps.Copy(used, names)
		if len(flags.labels) == 0 {
			continue
		}
		known, err := e.volumes(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, v := range known {
			labels[[2]string{v.Pool(), v.Name}] = v.Labels
		}
	}
	for _, v := range all {
		old := flags.older == 0 || !v.CreatedAt.IsZero() && time.Since(v.CreatedAt) >= time.Duration(flags.older)
		if old && !used[v.Name] && !v.Mounted && !v.Protected && v.Restoring == "" && hasLabels(labels[[2]string{v.Pool, v.Name}], flags.labels) {
			unused = append(unused, v)
		}
	}
	return unused, kept, nil
}

// label is one that a volume has to have.
type label struct {
	key, value string
	any        bool // whatever its value
}

func hasLabels(has map[string]string, want []label) bool {
	for _, l := range want {
		if v, ok := has[l.key]; !ok || !l.any && v != l.value {
			return false
		}
	}
	return true
}

// age is a flag: a duration that may be in days.
type age time.Duration

// String implements pflag.Value.
func (a *age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

// Type implements pflag.Value.
func (*age) Type() string { return "duration" }

// Set implements pflag.Value.
func (a *age) Set(s string) error {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			*a = age(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return errdefs.Errorf(errdefs.ErrInvalid, "want a time such as 12h or 30d")
	}
	*a = age(d)
	return nil
}
