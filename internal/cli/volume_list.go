package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/control"
)

func (a *app) volumeList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the volumes",
		Long: "List the volumes. SIZE is how much a volume may hold at the most, USED what it takes. A driver\n" +
			"that cannot tell shows \"-\", one that has not told in time \"?\". Where no driver knows, the files\n" +
			"are counted in the background for who asks, and USED says how old the figure is;\n" +
			"\"remora volume usage\" counts now. CONSUMERS are the containers that have the volume, those\n" +
			"that are stopped in brackets, where an engine of the configuration tells; else how often it is\n" +
			"mounted.",
		Args: usage(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
	}
	pool := a.poolFlag(cmd, "all")
	quiet := quietFlag(cmd, "names")
	f := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		all, err := c.Volumes().List(cmd.Context(), control.VolumeListRequest{Pool: *pool, Usage: !*quiet})
		if err != nil {
			return err
		}
		switch {
		case *quiet:
			return a.names(all)
		case *f == "json":
			return a.printJSON(all)
		}
		rows := make([][]string, 0, len(all))
		for _, v := range all {
			rows = append(rows, []string{v.Pool, v.Name, ago(v.CreatedAt), stateOf(v), limitOf(v), usedOf(v), snapshotsOf(v), backupOf(v), consumersOf(v), cmp.Or(v.Mountpoint, "-")})
		}
		return a.table([]string{"POOL", "VOLUME", "CREATED", "STATE", "SIZE", "USED", "SNAPSHOTS", "LAST BACKUP", "CONSUMERS", "MOUNTPOINT"}, rows)
	}
	return cmd
}

func (a *app) names(all []control.Volume) error {
	w := bufio.NewWriter(a.Stdout)
	for _, v := range all {
		if _, err := w.WriteString(v.Name + "\n"); err != nil {
			return err
		}
	}
	return w.Flush()
}

// stateOf says what is special about a volume.
func stateOf(v control.Volume) string {
	var words []string
	if v.Mounted {
		words = append(words, "mounted")
	}
	if v.Restoring != "" {
		words = append(words, v.Restoring)
	}
	if v.Protected {
		words = append(words, "protected")
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ",")
}

// unknownOr returns what stands for a figure that there is not.
func unknownOr(v control.Volume, field string) string {
	if slices.Contains(v.Unknown, field) {
		return "?"
	}
	return "-"
}

func limitOf(v control.Volume) string {
	if v.Limit == 0 {
		return unknownOr(v, "Limit")
	}
	return size(v.Limit)
}

func usedOf(v control.Volume) string {
	switch {
	case v.Used == nil:
		return unknownOr(v, "Used")
	case v.UsedAt.IsZero():
		return size(*v.Used)
	}
	return size(*v.Used) + " (" + ago(v.UsedAt) + ")"
}

func snapshotsOf(v control.Volume) string {
	if v.Snapshots == nil {
		return unknownOr(v, "Snapshots")
	}
	return strconv.Itoa(*v.Snapshots)
}

func backupOf(v control.Volume) string {
	if v.LastBackup.IsZero() {
		return unknownOr(v, "LastBackup")
	}
	return ago(v.LastBackup)
}

// fewConsumers is how many consumers a list names.
const fewConsumers = 3

func consumersOf(v control.Volume) string {
	mounts := 0
	for _, m := range v.Mounts {
		mounts += m.Count
	}
	switch {
	case len(v.Consumers) > 0:
	case mounts == 1:
		return "1 mount"
	case mounts > 1:
		return strconv.Itoa(mounts) + " mounts"
	default:
		return "-"
	}
	var names []string
	for i, c := range v.Consumers {
		if i == fewConsumers {
			names = append(names, fmt.Sprintf("+%d", len(v.Consumers)-i))
			break
		}
		name := c.Name
		if !c.Running {
			name = "(" + name + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

func (a *app) volumeInspect() *cobra.Command {
	cmd := &cobra.Command{Use: "inspect NAME...", Short: "Show everything about volumes", Args: names("volume")}
	pool := a.poolFlag(cmd, defaultPoolHelp)
	f := formatFlag(cmd)
	_ = f.Set("json") // a valid word
	cmd.Flags().Lookup("format").DefValue = "json"
	cmd.ValidArgsFunction = a.completeVolumes(pool, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		all := []control.Volume{}
		err = a.each(args, func(name string) error {
			v, err := c.Volumes().Inspect(cmd.Context(), control.VolumeRequest{Pool: *pool, Name: name})
			if err == nil {
				all = append(all, v)
			}
			return err
		})
		if len(all) == 0 && err != nil {
			return err
		}
		if *f == "json" {
			return errors.Join(a.printJSON(all), err)
		}
		rows := [][]string{}
		for _, v := range all {
			row := []string{v.Pool, v.Name, ago(v.CreatedAt), stateOf(v), limitOf(v), usedOf(v), snapshotsOf(v), backupOf(v), consumersOf(v), cmp.Or(v.Mountpoint, "-")}
			for _, m := range v.Mounts {
				rows = append(rows, append(slices.Clone(row), m.ID, ago(m.Since)))
			}
			if len(v.Mounts) == 0 {
				rows = append(rows, append(row, "-", "-"))
			}
		}
		head := []string{"POOL", "VOLUME", "CREATED", "STATE", "SIZE", "USED", "SNAPSHOTS", "LAST BACKUP", "CONSUMERS", "MOUNTPOINT", "MOUNT ID", "SINCE"}
		return errors.Join(a.table(head, rows), err)
	}
	return cmd
}

// size says how many bytes there are, in the units that options take.
func size(n int64) string {
	const units = "kmgtp"
	value, unit := float64(n), ""
	for i := 0; i < len(units) && value >= 1024; i++ {
		value, unit = value/1024, units[i:i+1]
	}
	text := strconv.FormatFloat(value, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + unit
}

// until says in how long t will be.
func until(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := time.Until(t)
	if d <= 0 {
		return "soon"
	}
	return "in " + long(d)
}
