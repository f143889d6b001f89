package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/remora-plugins/remora/internal/adopt"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// What became, or would become, of a volume of another tool.
const (
	adoptNew     = "new"
	adoptMade    = "made"
	adoptSame    = "exists (same)"
	adoptOther   = "exists (other)"
	adoptMissing = "missing"
	adoptRefused = "refused"
)

// adoption is a volume of another tool and what becomes of it; "--format json" prints it.
type adoption struct {
	// Name is that of the volume here, Old the one it has there.
	Name string `json:"Name"`
	Old  string `json:"Old"`
	From string `json:"From"`
	// How is "copy" or "in place".
	How    string `json:"How"`
	Result string `json:"Result"`
	// Reason says why where it is not taken over.
	Reason string `json:"Reason,omitempty"`
	// Commands are those by which the engine gets to know it.
	Commands []string `json:"Commands,omitempty"`

	option string // of the driver, by which it is taken over
	err    error
}

// fail ends the matter with an error, which decides the result.
func (r *adoption) fail(err error) {
	r.err, r.Reason, r.Result = err, err.Error(), adoptRefused
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		r.Result = adoptMissing
	case errors.Is(err, errdefs.ErrExists):
		r.Result = adoptOther
	}
}

// planAdoptions says what is to be done, and does nothing.
func planAdoptions(ctx context.Context, c *control.Client, found []adopt.Volume, f adoptFlags, known engineKnowledge) []adoption {
	rows, taken := make([]adoption, 0, len(found)), map[string]bool{}
	for _, v := range found {
		r := adoption{Name: v.Name, Old: v.Name, From: v.Path, How: "copy", Result: adoptNew, option: "from"}
		if f.inPlace {
			r.How, r.option = "in place", "mountpoint"
		}
		if to := f.rename[v.Name]; to != "" {
			r.Name = to
		}
		if err := volume.CheckName(r.Name); err != nil {
			if p := adopt.Propose(r.Name); p != "" {
				err = errdefs.Hint(err, "give it another: --rename "+strconv.Quote(v.Name+"="+p))
			}
			r.fail(err)
		} else if v.Err != nil {
			r.fail(v.Err)
		} else if taken[r.Name] {
			r.fail(errdefs.Errorf(errdefs.ErrInvalid, "another one is to have this name"))
		} else {
			taken[r.Name] = true
			r.look(ctx, c, *f.pool)
		}
		if r.Result == adoptNew && !f.inPlace && known.running[v.Name] {
			r.fail(errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "a container that runs has it, and may write while it is copied"),
				"stop the container: docker ps --filter volume="+v.Name))
		}
		rows = append(rows, r)
	}
	return rows
}

// look asks whether the pool has the volume.
func (r *adoption) look(ctx context.Context, c *control.Client, pool string) {
	v, err := c.Volumes().Inspect(ctx, control.VolumeRequest{Pool: pool, Name: r.Name})
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
	case err != nil:
		r.fail(err)
	default:
		r.compare(v)
	}
}

// compare tells a volume that was taken over before from any other.
func (r *adoption) compare(v control.Volume) {
	if r.option == "mountpoint" && v.Mountpoint == r.From || v.Options[r.option] == r.From {
		r.Result = adoptSame
		return
	}
	r.fail(errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "the pool has another volume of this name, whose data lies at %s", v.Mountpoint),
		"give it another name: --rename "+r.Old+"=NEW"))
}

// doAdoption makes the volume, if there is something to make.
func (a *app) doAdoption(ctx context.Context, c *control.Client, r *adoption, pool string) {
	if r.Result != adoptNew {
		return
	}
	if r.option == "from" {
		a.sayf("%s: copying %s\n", r.Name, r.From)
	}
	v, err := c.Volumes().Create(ctx, control.VolumeCreateRequest{Pool: pool, Name: r.Name, Options: map[string]string{r.option: r.From}})
	if err != nil {
		r.fail(err)
		return
	}
	if r.compare(v); r.Result == adoptSame { // or somebody made another meanwhile
		r.Result = adoptMade
	}
}

// settle finds the commands by which the engine gets to know the volume.
func (r *adoption) settle(f adoptFlags, known engineKnowledge) {
	if r.err != nil {
		return
	}
	owner := known.owner(r.Name, *f.pool)
	if !known.asked && f.tool == "local" && r.Name == r.Old {
		owner = f.tool // where else would it come from
	}
	remove := "docker volume rm " + r.Name
	switch {
	case owner == *f.pool:
		return
	case owner == "":
	case owner == "local" && f.tool == "local" && r.Name == r.Old && f.inPlace:
		r.Commands = []string{"# not " + remove + ", which would delete this data: take it over with --rename " + r.Name + "=NEW"}
		return
	case owner == "local" && f.tool == "local" && r.Name == r.Old:
		r.Commands = []string{remove + "   # deletes the original: look at the copy first"}
	case owner == f.tool && f.tool != "local":
		r.Commands = []string{remove + "   # " + owner + " forgets it and leaves its data"}
	default:
		r.Commands = []string{fmt.Sprintf("%s   # another volume, of the driver %q: its data may go with it", remove, owner)}
	}
	r.Commands = append(r.Commands, "docker volume create -d "+*f.pool+" "+r.Name)
}

// showAdoptions prints the result, and fails if some could not be taken over.
func (a *app) showAdoptions(all []adoption, f adoptFlags) error {
	byName, names, undone := map[string]error{}, make([]string, 0, len(all)), 0
	table, commands := make([][]string, 0, len(all)), []string(nil)
	for _, r := range all {
		result := r.Result
		if r.Result == adoptRefused {
			result += ": " + r.Reason
		}
		if r.Result == adoptNew {
			undone++
		}
		table = append(table, []string{printable(r.Name), printable(r.From), r.How, result})
		commands = append(commands, r.Commands...)
		names = append(names, r.Old)
		if r.err != nil {
			byName[r.Old] = fmt.Errorf("volume %q: %w", r.Old, r.err)
		}
	}
	var err error
	switch {
	case *f.format == "json":
		err = a.printJSON(all)
	case len(all) == 0:
		a.sayf("no volume was found\n")
	default:
		err = a.table([]string{"NAME", "FROM", "HOW", "RESULT"}, table)
	}
	if err != nil {
		return err
	}
	if undone > 0 {
		a.sayf("nothing was done; to do it: --yes\n")
	}
	if len(commands) > 0 && *f.format != "json" {
		a.sayf("for the engine, afterwards:\n  %s\n", strings.Join(commands, "\n  "))
	}
	return a.each(names, func(name string) error { return byName[name] })
}
