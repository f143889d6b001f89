package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/drivers/all"
	"github.com/remora-plugins/remora/internal/config"
)

// source has the environment that a plugin has with these settings.
func source(c plugin.Config, set ...string) config.Source {
	s := config.Source{File: os.DevNull, Env: set, Drivers: map[string]config.Driver{}}
	for _, e := range c.Env {
		if e.Value != nil {
			s.Env = append(s.Env, e.Name+"="+*e.Value)
		}
	}
	for _, d := range all.Volumes() {
		cd := config.Driver{Check: d.Check}
		for _, k := range d.Keys() {
			cd.Keys = append(cd.Keys, k.Name)
		}
		s.Drivers[d.Name()] = cd
	}
	return s
}

// TestEverySettingIsAVariable: what a host can write in the file, a plugin can be set to.
func TestEverySettingIsAVariable(t *testing.T) {
	c := pluginConfig(all.Volumes())
	var names []string
	for _, e := range c.Env {
		if slices.Contains(names, e.Name) {
			t.Errorf("%s is there twice", e.Name)
		}
		names = append(names, e.Name)
		if e.Description == "" || strings.ContainsAny(e.Name, ".-") {
			t.Errorf("%+v: no description, or a name that docker plugin set cannot take", e)
		}
	}
	var want []string
	for _, k := range config.Keys() {
		want = append(want, k.Env)
	}
	for _, d := range all.Volumes() {
		for _, k := range d.Keys() {
			want = append(want, "REMORA_POOL_REMORA_"+strings.ToUpper(strings.ReplaceAll(k.Name, "-", "_")))
		}
		for _, v := range d.Variables() {
			want = append(want, v.Name)
		}
	}
	for _, k := range config.RepositoryKeys() {
		want = append(want, "REMORA_REPOSITORY_MAIN_"+strings.ToUpper(k.Name))
	}
	for _, k := range config.ScheduleKeys() {
		want = append(want, "REMORA_SCHEDULE_MAIN_"+strings.ToUpper(k.Name))
	}
	for _, k := range config.VerifyKeys() {
		want = append(want, "REMORA_VERIFY_MAIN_"+strings.ToUpper(k.Name))
	}
	want = append(want, "EBS_ACCESSKEY", "EBS_SECRETKEY", "EBS_REGION", "DOBS_TOKEN", "OS_PASSWORD", "GCEPD_TAG", "RBD_DEFAULTPOOL")
	for _, name := range want {
		if !slices.Contains(names, name) {
			t.Errorf("no variable %s", name)
		}
	}
}

// TestEveryVariableIsASetting: the daemon refuses none of the variables. What it says of a value
// that is wrong tells that it knows the key.
func TestEveryVariableIsASetting(t *testing.T) {
	c := pluginConfig(all.Volumes())
	for _, e := range c.Env {
		if !strings.HasPrefix(e.Name, "REMORA_") || e.Name == "REMORA_CONFIG" {
			continue
		}
		known := false
		var last error
		for _, d := range all.Volumes() { // whose key it may be
			set := []string{
				"REMORA_POOL_REMORA_DRIVER=" + d.Name(), "REMORA_REPOSITORIES=main", "REMORA_SCHEDULES=main", "REMORA_VERIFIES=main",
				"REMORA_REPOSITORY_MAIN_URL=/r", "REMORA_REPOSITORY_MAIN_PASSWORD_ENV=BACKUP_PASSWORD",
				"REMORA_SCHEDULE_MAIN_CRON=@daily", "REMORA_SCHEDULE_MAIN_VOLUMES=*",
			}
			if !slices.ContainsFunc(set, func(s string) bool { return strings.HasPrefix(s, e.Name+"=") }) {
				set = append(set, e.Name+"=1")
			}
			_, err := config.Load(source(c, set...))
			if err == nil || !strings.Contains(err.Error(), "is no key of") && !strings.Contains(err.Error(), "unknown variable") {
				known = true
				break
			}
			last = err
		}
		if !known {
			t.Errorf("%s: %v", e.Name, last)
		}
	}
}

// TestDefaults: what a plugin is without a setting.
func TestDefaults(t *testing.T) {
	c, err := config.Load(source(pluginConfig(all.Volumes())))
	if err != nil {
		t.Fatal(err)
	}
	if c.Log.Format != "engine" || !strings.HasPrefix(c.RunDir, kept+"/") || c.StateDir != kept ||
		len(c.Pools) != 1 || c.Pools[0].Name != "remora" || c.Pools[0].Driver != "dir" {
		t.Errorf("configuration is %+v", c)
	}
}

// TestNetworkPlugin: it is one of networks of Swarm, whatever is set, and asks for no right that is for volumes.
func TestNetworkPlugin(t *testing.T) {
	c := networkConfig()
	got, err := config.Load(source(c))
	if err != nil {
		t.Fatal(err)
	}
	if got.Network.Driver != networkName || got.Network.Scope != "global" || c.Interface.Socket != networkName+".sock" || got.StateDir != kept {
		t.Errorf("the network is %+v, on socket %s, in %s", got.Network, c.Interface.Socket, got.StateDir)
	}
	for _, right := range c.Linux.Capabilities {
		if !slices.Contains([]string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}, right) {
			t.Errorf("it asks for %s", right)
		}
	}
	if c.PidHost || c.Linux.AllowAllDevices || len(c.Mounts) != 1 {
		t.Errorf("it asks for more: %+v", c)
	}
	for _, e := range c.Env {
		if slices.Contains([]string{"REMORA_NETWORK_DRIVER", "REMORA_NETWORK_SCOPE"}, e.Name) && len(e.Settable) > 0 {
			t.Errorf("%s can be set", e.Name)
		}
	}
}
