package network

import (
	"context"
	"encoding/json"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// question is what one host asks of another; one of its fields is set.
type question struct {
	Addresses *address.Request `json:"addresses,omitempty"`
	Uses      string           `json:"uses,omitempty"` // ID of a network: which containers are on it
}

// answer is what is answered, or why not.
type answer struct {
	Addresses *address.Answer `json:"addresses,omitempty"`
	Uses      *[]string       `json:"uses,omitempty"`
	Error     string          `json:"error,omitempty"`
	Class     string          `json:"class,omitempty"`
}

// Ask implements [address.Asker].
func (u *up) Ask(ctx context.Context, host record.Host, r address.Request) (address.Answer, error) {
	a, err := u.ask(ctx, host, question{Addresses: &r})
	if err == nil && a.Addresses == nil {
		err = errdefs.Errorf(errdefs.ErrUnavailable, "host %s: its answer is none", host.Short())
	}
	if err != nil {
		return address.Answer{}, err
	}
	return *a.Addresses, nil
}

// askUses asks another host which containers of it are on a network.
func (u *up) askUses(ctx context.Context, host record.Host, network string) ([]string, error) {
	a, err := u.ask(ctx, host, question{Uses: network})
	if err == nil && a.Uses == nil {
		err = errdefs.Errorf(errdefs.ErrUnavailable, "host %s: its answer is none", host.Short())
	}
	if err != nil {
		return nil, err
	}
	return *a.Uses, nil
}

func (u *up) ask(ctx context.Context, host record.Host, q question) (a answer, err error) {
	text, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	select {
	case <-u.opened:
	default:
		return a, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: not reached yet", host.Short())
	}
	text, err = u.cluster.Ask(ctx, host, text)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: its answer is none: %w", host.Short(), err)
	}
	if a.Error != "" {
		return a, errdefs.Named(a.Class, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: %s", host.Short(), a.Error))
	}
	return a, nil
}

// answer answers another host.
func (u *up) answer(ctx context.Context, from record.Host, text []byte) []byte {
	var q question
	var a answer
	err := json.Unmarshal(text, &q)
	in := u.in()
	switch {
	case err != nil:
		err = errdefs.As(errdefs.ErrInvalid, err)
	case in == nil:
		err = errdefs.Errorf(errdefs.ErrUnavailable, "not ready yet")
	case q.Uses != "":
		who := in.usedHere(q.Uses)
		a.Uses = &who
	case q.Addresses == nil:
		err = errdefs.Errorf(errdefs.ErrUnsupported, "this version does not know the question")
	default:
		var given address.Answer
		if given, err = in.alloc.Answer(ctx, from, *q.Addresses); err == nil {
			a.Addresses = &given
		}
	}
	if err != nil {
		a.Error, a.Class = errdefs.OneLine(err.Error()), errdefs.Name(err)
	}
	text, err = json.Marshal(a)
	if err != nil { // of plain values it cannot be
		return nil
	}
	return text
}
