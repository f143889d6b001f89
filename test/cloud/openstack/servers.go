package openstack

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/remora-plugins/remora/test/cloud/process"
)

// serve starts a server that lives as long as the cloud.
func (c *Cloud) serve(name string, env []string, args ...string) (*process.Process, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir = append(os.Environ(), env...), c.Dir
	p, err := process.Start(name, c.path(name+".out"), cmd)
	if err == nil {
		c.mu.Lock()
		c.servers = append(c.servers, p)
		c.mu.Unlock()
	}
	return p, err
}

// startRabbit starts a RabbitMQ with a port mapper of its own: the one of the machine may be
// anybody's.
func (c *Cloud) startRabbit(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	// It does not start where anybody listens on its port for other nodes, at whichever address.
	nodes, err := freePort()
	if err != nil {
		return err
	}
	dir := c.path("rabbit")
	env := []string{
		"HOME=" + dir, "ERL_EPMD_PORT=" + port, "RABBITMQ_DIST_PORT=" + nodes,
		"RABBITMQ_NODENAME=r@localhost", "RABBITMQ_CONF_ENV_FILE=" + dir + "/none",
		"RABBITMQ_CONFIG_FILE=" + dir + "/rabbitmq.conf", "RABBITMQ_ADVANCED_CONFIG_FILE=" + dir + "/none.config",
		"RABBITMQ_MNESIA_BASE=" + dir + "/db", "RABBITMQ_LOG_BASE=" + dir, "RABBITMQ_LOGS=-", "RABBITMQ_PID_FILE=" + dir + "/pid",
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + dir + "/plugins", "RABBITMQ_GENERATED_CONFIG_DIR=" + dir + "/generated",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none -kernel inet_dist_use_interface {" + strings.ReplaceAll(c.address.IP, ".", ",") + "}",
	}
	conf := "listeners.tcp.1 = " + c.address.At(5672) + "\ndisk_free_limit.absolute = 10MB\n"
	if err := c.write("rabbit/rabbitmq.conf", conf); err != nil {
		return err
	}
	epmd, err := c.serve("epmd", []string{"ERL_EPMD_ADDRESS=127.0.0.1"}, "epmd", "-port", port)
	if err != nil {
		return err
	}
	if err := process.Wait(ctx, "epmd", func() error { return process.Listening("127.0.0.1:" + port) }, epmd); err != nil {
		return err
	}
	p, err := c.serve("rabbitmq", env, "/usr/lib/rabbitmq/bin/rabbitmq-server")
	if err != nil {
		return err
	}
	return process.Wait(ctx, "rabbitmq", func() error { return process.Listening(c.address.At(5672)) }, p)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func (c *Cloud) keystoneConf() string {
	return c.expand(`
[DEFAULT]
log_file = $dir/keystone.log
[database]
connection = sqlite:///$dir/keystone.db?timeout=60
sqlite_synchronous = false
[token]
provider = fernet
[identity]
password_hash_rounds = 4
[cache]
enabled = true
backend = dogpile.cache.memory
[fernet_tokens]
key_repository = $dir/keys/f
[credential]
key_repository = $dir/keys/c
[oslo_middleware]
enable_proxy_headers_parsing = true
`)
}

func (c *Cloud) startKeystone(ctx context.Context) error {
	manage := func(env []string, args ...string) error {
		_, err := process.Run(ctx, env, "keystone-manage", append([]string{"--config-file", c.path("keystone.conf")}, args...)...)
		return err
	}
	if err := manage(nil, "db_sync"); err != nil {
		return err
	}
	if err := c.writeAheadLog(ctx, "keystone.db"); err != nil {
		return err
	}
	if err := together(
		func() error {
			return manage(nil, "fernet_setup", "--keystone-user", "root", "--keystone-group", "root")
		},
		func() error {
			return manage(nil, "credential_setup", "--keystone-user", "root", "--keystone-group", "root")
		},
	); err != nil {
		return err
	}
	if err := manage([]string{"OS_BOOTSTRAP_PASSWORD=" + c.Password}, "bootstrap", "--bootstrap-region-id", Region,
		"--bootstrap-admin-url", c.AuthURL, "--bootstrap-internal-url", c.AuthURL, "--bootstrap-public-url", c.AuthURL); err != nil {
		return err
	}
	// One process, which knows what it has in its cache, and a connection for each request, lest a database in a
	// file is locked for too long.
	p, err := c.serve("keystone", []string{"OS_KEYSTONE_CONFIG_FILES=" + c.path("keystone.conf")},
		"uwsgi_python3", "--http-socket", c.address.At(5000), "--listen", "100", "--add-header", "Connection: close",
		"--wsgi-file", "/usr/bin/keystone-wsgi-public", "--pyargv", "--config-file "+c.path("keystone.conf"),
		"--master", "--processes", "1", "--buffer-size", "65535", "--die-on-term")
	if err != nil {
		return err
	}
	if err := process.Wait(ctx, "keystone", func() error { return process.Listening(c.address.At(5000)) }, p); err != nil {
		return err
	}
	return c.populate(ctx)
}

// writeAheadLog has a database in which one writes while others read.
func (c *Cloud) writeAheadLog(ctx context.Context, name string) error {
	_, err := process.Run(ctx, nil, "sqlite3", c.path(name), "PRAGMA journal_mode=WAL")
	return err
}

// expand fills in a configuration.
func (c *Cloud) expand(text string) string {
	return strings.NewReplacer("$dir", c.Dir, "$ip", c.address.IP, "$password", c.Password, "$auth", c.AuthURL,
		"$rabbit", fmt.Sprintf("rabbit://guest:guest@%s/", c.address.At(5672)), "$zone", Zone, "$region", Region).Replace(text)
}
