package kernel

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// passOn passes a packet on: by the link in the second register, to the neighbour whose address is in the first. The
// library of nftables does not have this expression, so rules that end with it are sent without its help.
type passOn struct{ v6 bool }

// The attributes of the expression (include/uapi/linux/netfilter/nf_tables.h, enum nft_fwd_attributes).
const (
	fwdLink    = 1
	fwdAddress = 2
	fwdFamily  = 3
)

func (p *passOn) marshal() ([]byte, error) {
	family := uint32(unix.NFPROTO_IPV4)
	if p.v6 {
		family = unix.NFPROTO_IPV6
	}
	data, err := mdnetlink.MarshalAttributes([]mdnetlink.Attribute{
		{Type: fwdLink, Data: binaryutil.BigEndian.PutUint32(2)},
		{Type: fwdAddress, Data: binaryutil.BigEndian.PutUint32(1)},
		{Type: fwdFamily, Data: binaryutil.BigEndian.PutUint32(family)},
	})
	if err != nil {
		return nil, err
	}
	return mdnetlink.MarshalAttributes([]mdnetlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: []byte("fwd\x00")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: data},
	})
}

// message adds a rule at the end of its chain.
func (r *rule) message(table *nftables.Table, userData []byte) (m mdnetlink.Message, err error) {
	var parts []mdnetlink.Attribute
	add := func(data []byte, failed error) {
		err = errors.Join(err, failed)
		parts = append(parts, mdnetlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: data})
	}
	for _, e := range r.exprs {
		add(expr.Marshal(byte(table.Family), e))
	}
	if r.last != nil {
		add(r.last.marshal())
	}
	if err != nil {
		return m, err
	}
	list, err := mdnetlink.MarshalAttributes(parts)
	if err != nil {
		return m, err
	}
	data, err := mdnetlink.MarshalAttributes([]mdnetlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(table.Name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(r.chain.Name + "\x00")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_RULE_EXPRESSIONS, Data: list},
		{Type: unix.NFTA_RULE_USERDATA, Data: userData},
	})
	m.Header.Type = mdnetlink.HeaderType(rulesSubsystem<<8 | unix.NFT_MSG_NEWRULE)
	m.Header.Flags = mdnetlink.Request | mdnetlink.Acknowledge | mdnetlink.Create | mdnetlink.Append
	m.Data = append(header(byte(table.Family), 0), data...)
	return m, err
}

// header is that of each message of nftables: a family, a version, and a resource in the order of the net.
func header(family byte, resource uint16) []byte {
	return append([]byte{family, unix.NFNETLINK_V0}, binaryutil.BigEndian.PutUint16(resource)...)
}

// send adds rules in one transaction.
func send(rules []mdnetlink.Message) error {
	c, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	edge := func(kind uint16) mdnetlink.Message {
		return mdnetlink.Message{Header: mdnetlink.Header{Type: mdnetlink.HeaderType(kind), Flags: mdnetlink.Request}, Data: header(unix.AF_UNSPEC, rulesSubsystem)}
	}
	batch := slices.Concat([]mdnetlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, rules, []mdnetlink.Message{edge(unix.NFNL_MSG_BATCH_END)})
	if _, err := c.SendMessages(batch); err != nil {
		return err
	}
	for range rules {
		if _, err := c.Receive(); err != nil {
			return fmt.Errorf("to pass packets on: %w", err)
		}
	}
	return nil
}
