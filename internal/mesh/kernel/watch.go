package kernel

import (
	"bytes"
	"context"
	"strings"
	"time"

	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// Watch calls nudge when something of ours, or something that ours depends on, has changed in the kernel,
// by whomever. It returns when ctx ends. What it misses the next look finds.
func Watch(ctx context.Context, nudge func()) {
	for _, watch := range []func(context.Context, func()) error{watchRoutes, watchLinks, watchRules} {
		go func() {
			for ctx.Err() == nil {
				_ = watch(ctx, nudge)
				select { // it fell behind; what happened meanwhile is not known
				case <-ctx.Done():
				case <-time.After(time.Second):
					nudge()
				}
			}
		}()
	}
	<-ctx.Done()
}

func watchRoutes(ctx context.Context, nudge func()) error {
	events := make(chan netlink.RouteUpdate, 256)
	if err := netlink.RouteSubscribe(events, ctx.Done()); err != nil {
		return err
	}
	for e := range events {
		if e.Type == unix.RTM_DELROUTE && e.Protocol == Protocol {
			nudge()
		}
	}
	return nil
}

func watchLinks(ctx context.Context, nudge func()) error {
	events := make(chan netlink.LinkUpdate, 256)
	if err := netlink.LinkSubscribe(events, ctx.Done()); err != nil {
		return err
	}
	for e := range events {
		a := e.Attrs()
		if strings.HasPrefix(a.Name, plan.Prefix) || strings.HasPrefix(a.Alias, portAlias) {
			nudge()
		}
	}
	return nil
}

// Of the messages of nftables: the group, the subsystem in their type, and where their attributes begin.
const (
	rulesGroup     = 7
	rulesSubsystem = 10
	familyHeader   = 4
)

func watchRules(ctx context.Context, nudge func()) error {
	c, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, &mdnetlink.Config{Groups: 1 << (rulesGroup - 1)})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		if stop() {
			_ = c.Close()
		}
	}()
	for {
		messages, err := c.Receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type>>8 == rulesSubsystem && len(m.Data) > familyHeader && ofInterest(m.Data[familyHeader:]) {
				nudge()
			}
		}
	}
}

// ofInterest looks for the name of a table in the attributes: ours, or that of iptables.
func ofInterest(attributes []byte) bool {
	list, err := mdnetlink.UnmarshalAttributes(attributes)
	if err != nil {
		return false
	}
	for _, a := range list {
		if a.Type == unix.NFTA_TABLE_NAME {
			name := string(bytes.TrimRight(a.Data, "\x00"))
			return name == TableName || name == "filter"
		}
	}
	return false
}
