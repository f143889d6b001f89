package openstack

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/test/cloud/ceph"
	"github.com/remora-plugins/remora/test/cloud/process"
)

// cinderConf has services say often what they have: a back end that says so before the scheduler listens is not
// heard, and the cloud is up when it says it again.
func (c *Cloud) cinderConf() string {
	text := `
[DEFAULT]
auth_strategy = keystone
transport_url = $rabbit
my_ip = $ip
host = remora
osapi_volume_listen = $ip
osapi_volume_workers = 1
api_paste_config = /etc/cinder/api-paste.ini
rootwrap_config = /etc/cinder/rootwrap.conf
state_path = $dir
log_dir = $dir
enabled_backends = ` + strings.Join(c.types(), ",") + `
default_volume_type = files
storage_availability_zone = $zone
report_interval = 60
service_down_time = 600
periodic_interval = 2
periodic_fuzzy_delay = 0
backend_stats_polling_interval = 10
quota_volumes = 2000
quota_snapshots = 2000
quota_gigabytes = 100000
[oslo_middleware]
enable_proxy_headers_parsing = true
[files]
volume_driver = cinder.volume.drivers.nfs.NfsDriver
volume_backend_name = files
nfs_shares_config = $dir/shares
nfs_mount_point_base = $dir/mnt
nfs_snapshot_support = true
nas_secure_file_operations = false
nas_secure_file_permissions = false
max_over_subscription_ratio = 1000
[database]
connection = sqlite:///$dir/cinder.db?timeout=60
sqlite_synchronous = false
[keystone_authtoken]
www_authenticate_uri = $auth
auth_url = $auth
auth_type = password
project_name = service
project_domain_name = Default
user_domain_name = Default
username = cinder
password = $password
region_name = $region
[nova]
region_name = $region
auth_type = password
auth_url = $auth
project_name = service
project_domain_name = Default
user_domain_name = Default
username = cinder
password = $password
[oslo_concurrency]
lock_path = $dir/lock
[oslo_messaging_rabbit]
rabbit_retry_interval = 1
`
	if c.opts.Ceph != nil {
		text += fmt.Sprintf(`
[ceph]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = ceph
rbd_pool = %s
rbd_user = %s
rbd_ceph_conf = %s
rbd_flatten_volume_from_snapshot = true
`, ceph.Pool, ceph.User, c.opts.Ceph.Config)
	}
	return c.expand(text)
}

func (c *Cloud) makeCinderDB(ctx context.Context) error {
	if err := c.write("shares", share+"\n"); err != nil {
		return err
	}
	if err := c.makeSite(ctx); err != nil {
		return err
	}
	if _, err := process.Run(ctx, nil, "cinder-manage", "--config-file", c.path("cinder.conf"), "db", "sync"); err != nil {
		return err
	}
	return c.writeAheadLog(ctx, "cinder.db")
}

func (c *Cloud) startCinder() error {
	conf := []string{"--config-file", c.path("cinder.conf")}
	env := []string{"PYTHONPATH=" + c.path("site")}
	_, err := c.serve("cinder-api", env, append([]string{"cinder-api"}, conf...)...)
	if err != nil {
		return err
	}
	_, err = c.serve("cinder-scheduler", env, append([]string{"cinder-scheduler"}, conf...)...)
	if err != nil {
		return err
	}
	// The driver mounts nothing where its share is mounted already: by a bind mount, in a
	// namespace of the server's own.
	mnt := c.path("mnt/" + shareHash())
	_, err = c.serve("cinder-volume", env, append([]string{
		"unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount --bind "$1" "$2" && shift 2 && exec "$@"`, "sh", c.path("files"), mnt, "cinder-volume",
	}, conf...)...)
	return err
}

// finishCinder waits until Cinder can do all that it is asked, and says what types there are.
func (c *Cloud) finishCinder(ctx context.Context) error {
	if err := process.Wait(ctx, "cinder-api", func() error { return process.Listening(c.address.At(8776)) }, c.servers...); err != nil {
		return err
	}
	a, err := c.login(ctx)
	if err != nil {
		return err
	}
	if err := c.makeTypes(ctx, a); err != nil {
		return err
	}
	return process.Wait(ctx, "the back ends of Cinder", func() error { return c.ready(ctx, a) }, c.servers...)
}

func (c *Cloud) makeTypes(ctx context.Context, a *session) error {
	for _, name := range c.types() {
		body := object{"volume_type": object{"name": name, "extra_specs": object{"volume_backend_name": name}}}
		if err := a.call(ctx, http.MethodPost, a.cinder("/types"), body, nil); err != nil {
			return err
		}
	}
	return nil
}

// ready returns nil when each type has a back end that the scheduler knows of: a service is up
// long before that.
func (c *Cloud) ready(ctx context.Context, a *session) error {
	var got struct{ Pools []struct{ Name string } }
	if err := a.call(ctx, http.MethodGet, a.cinder("/scheduler-stats/get_pools"), nil, &got); err != nil {
		return err
	}
	for _, name := range c.types() {
		if !slices.ContainsFunc(got.Pools, func(p struct{ Name string }) bool { return strings.HasPrefix(p.Name, "remora@"+name+"#") }) {
			return fmt.Errorf("no pool of %s among %v", name, got.Pools)
		}
	}
	return nil
}

// types are the volume types, each with the back end of its name.
func (c *Cloud) types() []string {
	if c.opts.Ceph == nil {
		return []string{"files"}
	}
	return []string{"files", "ceph"}
}
