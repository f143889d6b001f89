package cli

import (
	"errors"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/remora-plugins/remora/internal/adopt"
	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/unpack"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func (a *app) adoptArchive() *cobra.Command {
	cmd := &cobra.Command{
		Use: "archive FILE [NAME...]", Short: "Make volumes of an archive, such as one by docker-volume-backup",
		Long: "Make volumes of an archive of tar, plain or compressed by gzip, Zstandard or bzip2. As\n" +
			"offen/docker-volume-backup writes them, each directory right below /backup in it is a volume:\n" +
			"all of them are meant, or those that are named. --path is another place in it, and with --as\n" +
			"all that is there is one volume. An empty volume of the name, in a pool of any driver, is\n" +
			"filled: make it first where it needs options. One that has data is left alone." + adoptHelp,
		Args: usage(cobra.MinimumNArgs(1)),
	}
	flags := a.adoptFlags(cmd)
	below := cmd.Flags().String("path", "backup", "`place` in the archive; \".\" is all of it")
	as := cmd.Flags().String("as", "", "make one `volume` of all that is there")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *as != "" && len(args) > 1 {
			return usageError(cmd, errors.New("--as makes one volume, and NAME is a directory of several: leave one out"))
		}
		file, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		bar := a.bar()
		dirs, loose, err := unpack.Dirs(cmd.Context(), file, *below, func(done, total int64) {
			bar.show(control.Progress{Object: args[0], Done: done, Total: total})
		})
		bar.end()
		if err != nil {
			return err
		}
		var found []adopt.Volume
		switch {
		case *as != "":
			found = []adopt.Volume{{Name: *as, Archive: file, Path: path.Clean(*below)}}
		default:
			for _, d := range dirs {
				found = append(found, adopt.Volume{Name: d.Name, Archive: file, Path: path.Join(*below, d.Name)})
			}
			if loose > 0 {
				a.sayf("%d files lie beside the directories and are in no volume; to make one volume of all at %q: --as NAME\n", loose, *below)
			}
			found = only(found, args[1:])
		}
		flags.tool, flags.how, flags.driver = "", adoptUnpack, ""
		return a.adopt(cmd.Context(), found, *flags)
	}
	return cmd
}

func errNoSuch(all []adopt.Volume) error {
	err := errdefs.Errorf(errdefs.ErrNotFound, "there is none of this name")
	if len(all) > 0 {
		err = errdefs.Hint(err, "there is: "+quoted(all))
	}
	return err
}
