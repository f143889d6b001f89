package csi

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/kubeshim"
	"github.com/remora-plugins/remora/internal/csi/launch"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// checkKube refuses keys of the Kubernetes API that cannot be meant.
func (c config) checkKube() error {
	if err := c.Options.Check(); err != nil {
		return err
	}
	if c.Shim && c.Kind() == launch.External {
		return errdefs.Errorf(errdefs.ErrInvalid, "key %q: only a CSI driver that the daemon starts can be given a Kubernetes API", "kubeshim")
	}
	return nil
}

// readKube refuses secrets for the Kubernetes API that cannot be read.
func (c config) readKube() error {
	for name, ref := range c.SecretData {
		if _, err := readSecret(ref); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "key %q: %s: %w", "kube_secrets", name, err)
		}
	}
	return nil
}

// launch begins to start the CSI driver, or takes it over.
func (d *driver) launch(ctx context.Context, env catalog.Env) error {
	home := filepath.Join(env.StateDir, "csi", env.PoolName)
	l := launch.Config{
		Keys: d.c.Keys, Pool: env.PoolName, Mounts: d.dir, Log: d.log,
		Dir: filepath.Join(home, "driver"), RunDir: filepath.Join(env.RunDir, "csi", env.PoolName, "driver"),
	}
	var err error
	if d.c.Shim {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		d.kube, err = kubeshim.Start(ctx, kubeshim.Config{
			Options: d.c.Options, Dir: filepath.Join(home, "kube"), Node: cmp.Or(d.c.NodeID, host), Read: readSecret, Log: d.log,
		})
		if err != nil {
			return err
		}
		l.Extra.Env = d.kube.Env()
		if d.c.Kind() == launch.Image {
			l.Extra.Binds = []string{d.kube.Account() + ":" + kubeshim.Inside + ":ro"}
			l.Extra.Env = append(l.Extra.Env, "KUBECONFIG="+kubeshim.Inside+"/kubeconfig")
		} else {
			l.Extra.Env = append(l.Extra.Env, "KUBECONFIG="+d.kube.Account()+"/kubeconfig")
		}
	}
	if d.run, err = launch.Start(ctx, l); err != nil && d.kube != nil {
		err = errors.Join(err, d.kube.Close())
	}
	return err
}

// letGo leaves the CSI driver as it is.
func (d *driver) letGo() error {
	err := d.run.Close()
	if d.kube != nil {
		err = errors.Join(err, d.kube.Close())
	}
	return err
}
