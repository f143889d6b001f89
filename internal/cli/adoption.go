package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// How the data of a volume of another tool comes here.
const (
	adoptCopy    = "copy"
	adoptInPlace = "in place"
	adoptDefine  = "definition" // it is on a server, and what is taken over is where
	adoptUnpack  = "unpack"
)

// adoption is a volume of another tool and what becomes of it; "--format json" prints it.
type adoption struct {
	// Name is that of the volume here, Old the one it has there.
	Name string `json:"Name"`
	Old  string `json:"Old"`
	From string `json:"From"`
	// How is "copy", "in place", "definition" or "unpack".
	How    string `json:"How"`
	Result string `json:"Result"`
	// Reason says why where it is not taken over.
	Reason string `json:"Reason,omitempty"`
	// Commands are those by which the engine gets to know it.
	Commands []string `json:"Commands,omitempty"`

	options map[string]string // of the driver, by which it is taken over; a password may be in it
	source  adopt.Volume
	err     error
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
func (a *app) planAdoptions(ctx context.Context, c *control.Client, found []adopt.Volume, f adoptFlags, known engineKnowledge) []adoption {
	rows, taken := make([]adoption, 0, len(found)), map[string]bool{}
	for _, v := range found {
		r := adoption{Name: v.Name, Old: v.Name, From: v.Path, How: f.how, Result: adoptNew, source: v}
		switch f.how {
		case adoptCopy:
			r.options = map[string]string{"from": v.Path}
		case adoptInPlace:
			r.options = map[string]string{"mountpoint": v.Path}
		case adoptDefine:
			r.options = v.Options
		case adoptUnpack:
			if r.From = v.Archive; v.Path != "." {
				r.From += ":" + v.Path
			}
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
			a.look(ctx, c, &r, *f.pool)
		}
		if user := inUse(v, found, f, known); r.Result == adoptNew && user != "" {
			r.fail(errdefs.Hint(errdefs.Errorf(errdefs.ErrInUse, "a container that runs has it, and may write while it is taken over"),
				"stop the container: docker ps --filter volume="+user))
		}
		rows = append(rows, r)
	}
	return rows
}

// inUse returns the name of a volume with the data of v that a running container has.
func inUse(v adopt.Volume, found []adopt.Volume, f adoptFlags, known engineKnowledge) string {
	if f.how == adoptUnpack {
		return "" // the archive is nobody's
	}
	for _, other := range found {
		if known.running[other.Name] && other.Path == v.Path {
			return other.Name
		}
	}
	return ""
}

// look asks whether the pool has the volume.
func (a *app) look(ctx context.Context, c *control.Client, r *adoption, pool string) {
	v, err := c.Volumes().Inspect(ctx, control.VolumeRequest{Pool: pool, Name: r.Name})
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
	case err != nil:
		r.fail(err)
	case r.How == adoptUnpack:
		a.lookInside(ctx, c, r, v)
	default:
		r.compare(v)
	}
}

// compare tells a volume that was taken over before from any other.
func (r *adoption) compare(v control.Volume) {
	if r.isSame(v) {
		r.Result = adoptSame
		return
	}
	where := "data lies at " + v.Mountpoint
	if r.How == adoptDefine {
		where = "options are others"
	}
	r.fail(errdefs.Hint(errdefs.Errorf(errdefs.ErrExists, "the pool has another volume of this name, whose %s", where),
		"give it another name: --rename "+r.Old+"=NEW"))
}

func (r *adoption) isSame(v control.Volume) bool {
	if r.How == adoptInPlace && v.Mountpoint == r.From {
		return true
	}
	shown := maps.Clone(r.options)
	delete(shown, "password") // nobody is shown it, and Create compares it
	if r.How == adoptDefine {
		return maps.Equal(shown, v.Options)
	}
	for key, value := range shown {
		if v.Options[key] != value {
			return false
		}
	}
	return true
}

// doAdoption makes the volume, if there is something to make.
func (a *app) doAdoption(ctx context.Context, c *control.Client, r *adoption, pool string) {
	again := r.Result == adoptSame && r.How == adoptDefine // the password may be another
	if r.Result != adoptNew && !again {
		return
	}
	if r.How == adoptUnpack {
		a.unpack(ctx, c, r, pool)
		return
	}
	if r.How == adoptCopy {
		a.sayf("%s: copying %s\n", r.Name, r.From)
	}
	v, err := c.Volumes().Create(ctx, control.VolumeCreateRequest{Pool: pool, Name: r.Name, Options: r.options})
	if err != nil {
		r.fail(err)
		return
	}
	if r.compare(v); r.Result == adoptSame && !again { // or somebody made another meanwhile
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
	case owner == "local" && f.tool == "local" && r.Name == r.Old && f.how == adoptInPlace:
		r.Commands = []string{"# not " + remove + ", which would delete this data: take it over with --rename " + r.Name + "=NEW"}
		return
	case owner == "local" && f.tool == "local" && r.Name == r.Old:
		r.Commands = []string{remove + "   # deletes the original: look at the copy first"}
	case f.tool == "rexray" && isTool(owner, f.tool):
		r.Commands = []string{"# not " + remove + ", by which REX-Ray deletes the disk, unless its configuration has " + rexrayKeep + ": true; or take it over with --rename " + r.Name + "=NEW"}
		return
	case f.tool != "local" && isTool(owner, f.tool):
		what := " forgets it and leaves its data, and has to run for that"
		if f.tool == "sshfs" { // docker-volume-sshfs#81
			what = " has to run for that, but no container with any volume of it: it may delete what is on the server"
		}
		r.Commands = []string{remove + "   # " + owner + what}
	default:
		r.Commands = []string{fmt.Sprintf("%s   # another volume, of the driver %q: its data may go with it", remove, owner)}
	}
	r.Commands = append(r.Commands, "docker volume create -d "+*f.pool+" "+r.Name)
}

// rexrayKeep is the key with which REX-Ray says yes to a removal and does nothing.
const rexrayKeep = "libstorage.integration.volume.operations.remove.disable"

// isTool says whether a volume driver of the engine is the tool, by its plain name or as a managed
// plugin of anybody's, such as "vieux/sshfs:latest".
func isTool(driver, tool string) bool {
	name, _, _ := strings.Cut(driver[strings.LastIndexByte(driver, '/')+1:], ":")
	return name == tool || tool == "rexray" && strings.HasPrefix(driver, "rexray/")
}

// showAdoptions prints the result, and fails if some could not be taken over.
func (a *app) showAdoptions(all []adoption, f adoptFlags, notes []string) error {
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
	if len(notes) > 0 && *f.format != "json" {
		a.sayf("before the first mount:\n  %s\n", strings.Join(notes, "\n  "))
	}
	return a.each(names, func(name string) error { return byName[name] })
}
