package cli

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/adopt"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) adoptSshfs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sshfs [FILE]", Short: "Take over the volumes of vieux/sshfs",
		Long: "Take over the volumes of vieux/sshfs: each becomes one of a pool of the driver sshfs, with the\n" +
			"same server, directory, port and options. A password goes into a file of mode 0600 and is\n" +
			"never shown. FILE is the plugin's sshfs-state.json; without it, it is looked for where the\n" +
			"settings of the managed plugin say, below " + adopt.PluginsDir + ".\n" +
			"Keys of the plugin's /root/.ssh are looked for in what was sshkey.source." + adoptHelp,
		Args: usage(cobra.MaximumNArgs(1)),
	}
	flags := a.adoptFlags(cmd)
	plugins := cmd.Flags().String("plugins", adopt.PluginsDir, "`directory` of Docker's managed plugins")
	keys := cmd.Flags().String("keys", "", "`directory` that was sshkey.source; without it the plugin's settings are asked")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		state, err := adopt.FindSshfs(*plugins)
		if len(args) == 1 {
			state.File, err = args[0], nil
		}
		if err != nil {
			return err
		}
		if *keys != "" {
			if state.Keys, err = filepath.Abs(*keys); err != nil {
				return err
			}
		}
		found, err := state.Volumes()
		if err != nil {
			return err
		}
		flags.tool, flags.how, flags.driver = "sshfs", adoptDefine, "sshfs"
		flags.notes = func(s control.Status) []string { return sshfsNotes(found, s, *flags.pool) }
		return a.adopt(cmd.Context(), found, *flags)
	}
	return cmd
}

// sshfsNotes say what the driver wants that vieux/sshfs did not.
func sshfsNotes(found []adopt.Volume, s control.Status, pool string) []string {
	known := filepath.Join(s.StateDir, "sshfs", pool, "known_hosts")
	var notes []string
	for _, server := range adopt.Servers(found) {
		port := ""
		if server[1] != "22" {
			port = "-p " + server[1] + " "
		}
		notes = append(notes, printable("ssh-keyscan "+port+server[0]+" >> "+known+"   # host keys are checked here: compare it with the server's own"))
	}
	return notes
}

func (a *app) adoptRexray() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rexray [DIR]", Short: "Take over the disks that REX-Ray mounted on this host, in place",
		Long: "Take over the volumes of REX-Ray whose disks are mounted on this host, in place. DIR is where\n" +
			"REX-Ray mounts them, " + adopt.RexrayDirs[0] + "\nif it is not given. Disks of a cloud that has a driver are taken in by \"remora volume import\"\n" +
			"instead. Any other disk is attached and mounted at DIR/NAME, with a line in /etc/fstab. What each\n" +
			"storage driver of REX-Ray's configuration can be replaced by is told too." + adoptHelp,
		Args: usage(cobra.MaximumNArgs(1)),
	}
	flags := a.adoptFlags(cmd)
	config := cmd.Flags().String("rexray-config", adopt.RexrayConfig, "`file` with REX-Ray's configuration")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pools, err := adopt.RexrayPools(*config)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(pools)) {
			if pools[name] == "" {
				a.sayf("# %s: there is no driver for it yet; attach its disks and mount them by hand\n", name)
				continue
			}
			a.sayf("# %s: in remora.toml, with what is in capitals filled in:\n%s\n", name, pools[name])
		}
		dirs := args
		if len(dirs) == 0 {
			dirs = adopt.RexrayDirs
		}
		var found []adopt.Volume
		for _, dir := range dirs {
			if found, err = adopt.Rexray(dir); err == nil {
				break
			}
		}
		if errors.Is(err, errdefs.ErrNotFound) && len(args) == 0 {
			err = errdefs.Hint(err, "name the directory in which REX-Ray's disks are mounted; those of a cloud are taken in by: remora volume import")
		}
		if err != nil {
			return err
		}
		flags.tool, flags.how = "rexray", adoptInPlace
		return a.adopt(cmd.Context(), found, *flags)
	}
	return cmd
}

func (a *app) adoptConvoyBackup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "convoy-backup DIR [NAME...]", Short: "Take over volumes from backups by Convoy's driver vfs",
		Long: "Make volumes from the newest backups by Convoy of volumes of its driver vfs: of all, without\n" +
			"NAME. DIR is the directory of --dest vfs://DIR. What is in S3 is copied to a directory first.\n" +
			"An older backup, and a snapshot, are archives that \"adopt archive --path . --as NAME\" takes." + adoptHelp,
		Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
	}
	flags := a.adoptFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		found, err := adopt.ConvoyBackups(args[0])
		if err != nil {
			return err
		}
		flags.tool, flags.how, flags.driver = "convoy", adoptUnpack, ""
		return a.adopt(cmd.Context(), only(found, args[1:]), *flags)
	}
	return cmd
}

// only returns the volumes that are named, or all. One that is not there is an error of its own.
func only(all []adopt.Volume, names []string) []adopt.Volume {
	if len(names) == 0 {
		return all
	}
	var some []adopt.Volume
	for _, name := range names {
		i := slices.IndexFunc(all, func(v adopt.Volume) bool { return v.Name == name })
		if i < 0 {
			some = append(some, adopt.Volume{Name: name, Err: errNoSuch(all)})
			continue
		}
		some = append(some, all[i])
	}
	return some
}

func quoted(all []adopt.Volume) string {
	var names []string
	for _, v := range all {
		names = append(names, fmt.Sprintf("%q", v.Name))
	}
	return strings.Join(names, ", ")
}
