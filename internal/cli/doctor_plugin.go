package cli

import (
	"fmt"
	"os/exec"
)

// plugins looks at the managed plugins, and whether what runs them is here.
func (d *doctor) plugins() {
	if d.status == nil {
		return
	}
	if d.status.PluginsError != "" {
		d.warn("managed plugins", d.status.PluginsError, "mend that, and restart the daemon")
		return
	}
	enabled := 0
	for _, p := range d.status.Plugins {
		if !p.Enabled {
			continue
		}
		enabled++
		check := "managed plugin " + p.Name
		if p.State == "running" {
			d.ok(check, p.State)
			continue
		}
		text := p.State
		if p.Error != "" {
			text += ": " + p.Error
		}
		d.fail(check, text, "look at what it says: remora plugin logs "+p.Name)
	}
	if _, err := exec.LookPath("runc"); err != nil && len(d.status.Plugins) > 0 {
		d.fail("managed plugins", "no runc in PATH, which runs them", "install runc")
	} else if len(d.status.Plugins) > 0 {
		d.ok("managed plugins", fmt.Sprintf("%d, of which %d enabled", len(d.status.Plugins), enabled))
	}
}
