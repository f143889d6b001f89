package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/adopt"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const adoptHelp = "\n\nWithout --yes it says what it would do and changes nothing; done again, it does what is\n" +
	"missing. What the other tool has is never changed. At the end stand the commands that tell\n" +
	"the engine; it is asked for the names it has under other drivers."

func (a *app) volumeAdopt() *cobra.Command {
	cmd := &cobra.Command{Use: "adopt", Short: "Take over the volumes that another tool left on this host", RunE: group}
	cmd.AddCommand(a.adoptLocalPersist(), a.adoptSshfs(), a.adoptConvoy(), a.adoptConvoyBackup(), a.adoptRexray(), a.adoptArchive(), a.adoptDocker())
	return cmd
}

func (a *app) adoptLocalPersist() *cobra.Command {
	cmd := &cobra.Command{
		Use: "local-persist [FILE]", Short: "Take over the volumes of local-persist, in place",
		Long: "Take over the volumes of local-persist. Each becomes one whose data stays in its directory,\n" +
			"as with -o mountpoint=. FILE is " + adopt.LocalPersistFile + "\nif it is not given. With a pool that is called local-persist too, --pool local-persist, the\n" +
			"engine and Compose files need not know." + adoptHelp,
		Args: usage(cobra.MaximumNArgs(1)),
	}
	flags := a.adoptFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file := adopt.LocalPersistFile
		if len(args) == 1 {
			file = args[0]
		}
		found, err := adopt.LocalPersist(file)
		if err != nil {
			return err
		}
		flags.tool, flags.how = "local-persist", adoptInPlace
		return a.adopt(cmd.Context(), found, *flags)
	}
	return cmd
}

func (a *app) adoptConvoy() *cobra.Command {
	cmd := &cobra.Command{
		Use: "convoy-vfs DIR", Short: "Take over the volumes of Convoy's driver vfs, in place",
		Long: "Take over the volumes of Convoy's driver vfs. Each becomes one whose data stays in its\n" +
			"directory, as with -o mountpoint=. DIR is what Convoy knows as vfs.path." + adoptHelp,
		Args: usage(cobra.ExactArgs(1)),
	}
	flags := a.adoptFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		found, err := adopt.ConvoyVFS(args[0])
		if err != nil {
			return err
		}
		flags.tool, flags.how = "convoy", adoptInPlace
		return a.adopt(cmd.Context(), found, *flags)
	}
	return cmd
}

func (a *app) adoptDocker() *cobra.Command {
	cmd := &cobra.Command{
		Use: "docker-local [NAME...]", Short: "Take over plain volumes of Docker's own driver, by copy",
		Long: "Take over volumes of Docker's own driver, \"local\": all that have names, without NAME. Each\n" +
			"is copied, as with -o from=, which wants that no container writes to it meanwhile. With\n" +
			"--in-place the data stays where it is; it is still Docker's, and \"docker volume rm\" and\n" +
			"\"docker volume prune\" delete it. Volumes with driver options are refused." + adoptHelp,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := a.adoptFlags(cmd)
	root := cmd.Flags().String("root", adopt.DockerRoot, "`directory` with Docker's volumes")
	inPlace := cmd.Flags().Bool("in-place", false, "leave the data where it is")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		found, err := adopt.DockerLocal(*root, args)
		if err != nil {
			return err
		}
		flags.tool, flags.how = "local", adoptCopy
		if *inPlace {
			flags.how = adoptInPlace
		}
		return a.adopt(cmd.Context(), found, *flags)
	}
	return cmd
}

// adoptFlags say what is to become of the volumes that were found.
type adoptFlags struct {
	tool    string // the name of its volume driver in the engine
	pool    *string
	how     string // what becomes of the data
	driver  string // of the pool; empty is any
	yes     bool
	rename  map[string]string
	engines []string
	format  *format
	// notes are lines that a person should read in the end, if there are any.
	notes func(control.Status) []string
}

func (a *app) adoptFlags(cmd *cobra.Command) *adoptFlags {
	f := &adoptFlags{rename: map[string]string{}, format: formatFlag(cmd), driver: "dir"}
	f.pool = a.poolFlag(cmd, defaultPoolHelp)
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do it")
	cmd.Flags().Func("rename", "call the volume `OLD=NEW` here; may be repeated", func(s string) error {
		i := strings.LastIndex(s, "=") // a name of Remora's has none
		if i <= 0 || i == len(s)-1 {
			return errdefs.Errorf(errdefs.ErrInvalid, "%q: want OLD=NEW", s)
		}
		f.rename[s[:i]] = s[i+1:]
		return nil
	})
	cmd.Flags().StringArrayVar(&f.engines, "engine", nil, "`socket` of an engine to ask in place of Docker's and Podman's; may be repeated; \"none\" asks nobody")
	return f
}

// adopt tells what is to be done with the volumes that were found, and does it if it may.
func (a *app) adopt(ctx context.Context, found []adopt.Volume, f adoptFlags) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if *f.pool, err = adoptPool(*f.pool, f.driver, s); err != nil {
		return err
	}
	for old := range f.rename {
		if !hasName(found, old) {
			return errdefs.Errorf(errdefs.ErrNotFound, "--rename: there is no volume %q", old)
		}
	}
	known, err := a.enginesKnow(ctx, f.engines, s.Pools)
	if err != nil {
		return err
	}
	rows := a.planAdoptions(ctx, c, found, f, known)
	if f.yes {
		for i := range rows {
			a.doAdoption(ctx, c, &rows[i], *f.pool)
		}
	}
	for i := range rows {
		rows[i].settle(f, known)
	}
	var notes []string
	if f.notes != nil {
		notes = f.notes(s)
	}
	return a.showAdoptions(rows, f, notes)
}

// adoptPool finds the pool, which must have the driver, if there is one that must be: without a
// name, the only pool that has it.
func adoptPool(name, driver string, s control.Status) (string, error) {
	var have []string
	for _, p := range s.Pools {
		if p.Driver == driver {
			have = append(have, p.Name)
		}
	}
	if name == "" && driver != "dir" && len(have) == 1 {
		return have[0], nil
	}
	name, err := control.ResolvePool(name, poolNames(s))
	if err != nil {
		return "", err
	}
	for _, p := range s.Pools {
		if p.Name == name && driver != "" && p.Driver != driver {
			return "", errdefs.Hint(errdefs.Errorf(errdefs.ErrUnsupported, "pool %q: its driver is %q, and these volumes are taken over by %q alone", name, p.Driver, driver),
				fmt.Sprintf("name another pool with --pool, or make one: [pool.NAME] with driver = %q", driver))
		}
	}
	return name, nil
}

func hasName(all []adopt.Volume, name string) bool {
	for _, v := range all {
		if v.Name == name {
			return true
		}
	}
	return false
}

// engineKnowledge is what the engines say about names of volumes.
type engineKnowledge struct {
	asked   bool
	has     map[[2]string]bool // by driver and name
	running map[string]bool    // a container that runs has it
}

// owner returns the driver of the engine's volume of this name: pool only if no other has
// one, for an engine may list the volumes of its plugins that it was never told of.
func (k engineKnowledge) owner(name, pool string) (driver string) {
	for key := range k.has {
		if key[1] == name && (driver == "" || driver == pool || key[0] != pool && key[0] < driver) {
			driver = key[0]
		}
	}
	return driver
}

// enginesKnow asks the engines. Those that nobody named need not be there.
func (a *app) enginesKnow(ctx context.Context, named []string, pools []control.Pool) (engineKnowledge, error) {
	know := engineKnowledge{has: map[[2]string]bool{}, running: map[string]bool{}}
	engines, err := a.engines(named, pools)
	if err == nil {
		for _, e := range engines {
			if err = know.ask(ctx, e); err != nil {
				break
			}
			know.asked = true
		}
	}
	if err != nil && len(named) == 0 && !errors.Is(err, context.Canceled) {
		a.sayf("no engine was asked which names it has: %v\n", err)
		return engineKnowledge{}, nil
	}
	return know, err
}

func (k engineKnowledge) ask(ctx context.Context, e engine) error {
	names, err := e.running(ctx)
	if err != nil {
		return err
	}
	for name := range names {
		k.running[name] = true
	}
	all, err := e.volumes(ctx)
	for _, v := range all {
		k.has[[2]string{v.Driver, v.Name}] = true
	}
	return err
}
