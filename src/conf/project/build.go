package project

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/load"
)

// Dispatcher cuts out the part of the process that speaks SMTP.
func Dispatcher(l *load.Loaded) *DispatcherConf {
	s := &l.Server
	d := &DispatcherConf{
		ServerName: s.Name, SubAddrDelim: s.SubAddrDelim.Value,
		MaxMessageSize: s.MaxMessageSize.Value, Ciphers: s.SMTPCiphers.Value,
		MaxMails: limit(s.SMTPLimits, "max-mails"), MaxRcpt: limit(s.SMTPLimits, "max-rcpt"),
		MaxSession: limit(s.SMTPLimits, "max-session"), MaxPerAddress: limit(s.SMTPLimits, "max-session-per-address"),
		MTALimits: mtaLimits(s.MTALimits), MTAMaxDeferred: int(s.MTAMaxDeferred.Value),
		SRSKey: s.SRSKey.Value, SRSKeyBackup: s.SRSKeyBackup.Value, SRSTTL: s.SRSTTL.Value,
	}
	for _, r := range l.Listeners {
		d.Listeners = append(d.Listeners, listener(r, s.Name))
	}
	d.filters(l.Config)
	for _, k := range l.PKIs {
		d.PKIs = append(d.PKIs, PKI{k.Name, CertIdentity(k.Cert), k.DHE})
	}
	for _, c := range l.CAs {
		d.CAs = append(d.CAs, CA{c.Name, CAIdentity(c.Cert)})
	}
	for _, a := range l.Actions {
		if !a.Method.Local() {
			d.Relays = append(d.Relays, relay(a, s.QueueTTL.Value))
		}
	}
	for _, p := range filterPrograms(l.Config) {
		p.Told = d.told(p.Name)
		if p.Told.ADMD = s.ADMD.Value; p.Told.ADMD == "" {
			p.Told.ADMD = s.Name
		}
		p.Identity = p.identity()
		d.Procs = append(d.Procs, p.Proc)
	}
	return d
}

func listener(r load.Listener, server string) Listener {
	l := r.Listen
	out := Listener{
		Identity: r.Identity, Socket: r.Socket, Addr: r.Addr, Local: r.Local,
		Hostname: l.Hostname, Hostnames: string(l.Hostnames), Tag: l.Tag,
		MaskSrc: l.MaskSrc, NoDSN: l.NoDSN, ProxyV2: l.ProxyV2, RecvAuth: l.RecvAuth,
		Senders: string(l.Senders), Masquerade: l.Masquerade,
		Auth: l.Auth, AuthTable: string(l.AuthTable), TLS: l.TLS, TLSVerify: l.TLSVerify,
		PKIs: l.PKIs, CA: l.CA, Ciphers: l.Ciphers, Protocols: l.Protocols, Filter: l.Filter,
	}
	if out.Hostname == "" {
		out.Hostname = server
	}
	return out
}

func (d *DispatcherConf) filters(cfg *conf.Config) {
	for _, f := range cfg.Filters {
		out := Filter{Name: f.Name, Kind: f.Kind, Chain: f.Chain, Phase: f.Phase, Decide: f.Decide, OnFailure: f.OnFailure}
		switch f.Kind {
		case conf.FilterProc:
			out.Proc = f.Proc.Name
		case conf.FilterProcExec:
			out.Proc = ofFilter + f.Name
		case conf.FilterBuiltin, conf.FilterChain:
		}
		for _, c := range f.Conds {
			out.Conds = append(out.Conds, FilterCond{c.Not, c.Kind, string(c.Table), c.Regex})
		}
		d.Filters = append(d.Filters, out)
	}
}

// ofFilter begins the name of a program that has none: it is called by the name
// of its filter, which may be that of a proc as well.
const ofFilter = "exec:"

// FilterProgram is a filter program with how it is started.
type FilterProgram struct {
	Proc
	Start *conf.Proc
	Pos   conf.Pos
}

// FilterPrograms returns the filter programs of a configuration.
func FilterPrograms(l *load.Loaded) []FilterProgram {
	list := filterPrograms(l.Config)
	for i, p := range Dispatcher(l).Procs {
		list[i].Proc = p
	}
	return list
}

// filterPrograms returns the programs in the order of Procs, by their names.
func filterPrograms(cfg *conf.Config) []FilterProgram {
	var list []FilterProgram
	for _, p := range cfg.Procs {
		list = append(list, FilterProgram{Proc{Name: p.Name}, p, p.Pos})
	}
	for _, f := range cfg.Filters {
		if f.Kind == conf.FilterProcExec {
			list = append(list, FilterProgram{Proc{Name: ofFilter + f.Name}, f.Proc, f.Pos})
		}
	}
	return list
}

// Shown is the name of a program for the log.
func (p *Proc) Shown() string { return strings.TrimPrefix(p.Name, ofFilter) }

// identity names the pipe of a program. It is another one when the program has to
// start anew, because it is started or told otherwise; the command is not in it.
func (p *FilterProgram) identity() string {
	c := p.Start
	sum := sha256.Sum256(fmt.Appendf(nil, "%q%q%q%q%+v", c.Command, c.User, c.Group, c.Chroot, p.Told))
	return "proc:" + p.Name + ":" + hex.EncodeToString(sum[:8])
}

// told tells which sessions a program is there for.
func (d *DispatcherConf) told(proc string) (t Told) {
	in := func(filter string) bool {
		return slices.ContainsFunc(d.Members(filter), func(f *Filter) bool { return f.Proc == proc })
	}
	for i := range d.Listeners {
		t.In = t.In || in(d.Listeners[i].Filter)
	}
	for i := range d.Relays {
		t.Out = t.Out || in(d.Relays[i].Filter)
	}
	return t
}

func relay(a *conf.Action, ttl time.Duration) RelayAction {
	out := RelayAction{
		Name: a.Name, TTL: orTTL(a.TTL, ttl), Backup: a.Backup, BackupMX: a.BackupMX,
		Src: string(a.BindTo), Helo: a.Helo, HeloSrc: string(a.HeloSrc), Host: a.Host,
		Hosts: string(a.HostTable), AuthTable: string(a.AuthTable), MailFrom: a.MailFrom,
		PKI: a.PKI, CA: a.CA, TLS: a.TLS, NoVerify: a.NoVerify,
		Protocols: a.Protocols, Ciphers: a.Ciphers, Filter: a.Filter, SRS: a.SRS,
	}
	if a.Domain != "" {
		out.Hosts, out.ByDomain = string(a.Domain), true
	}
	return out
}

func orTTL(d, ttl time.Duration) time.Duration {
	if d == 0 {
		return ttl
	}
	return d
}

func limit(list []*conf.Limit, key string) int {
	i := slices.IndexFunc(list, func(l *conf.Limit) bool { return l.Key == key })
	if i < 0 {
		return 0
	}
	return int(list[i].Value)
}

// mtaLimits returns the limits of every domain that has some, completed by those
// for all, which come first.
func mtaLimits(list []*conf.MTALimit) []MTALimits {
	base := MTALimits{}
	for _, l := range list {
		if l.Domain == "" {
			base.set(l)
		}
	}
	out := []MTALimits{base}
	for _, l := range list {
		if l.Domain == "" {
			continue
		}
		i := slices.IndexFunc(out, func(m MTALimits) bool { return m.Domain == l.Domain })
		if i < 0 {
			i = len(out)
			m := base
			m.Domain, m.Written = l.Domain, slices.Clone(base.Written)
			out = append(out, m)
		}
		out[i].set(l)
	}
	for i := range out {
		slices.Sort(out[i].Written)
		out[i].Written = slices.Compact(out[i].Written)
	}
	return out
}

func (m *MTALimits) set(l *conf.MTALimit) {
	n, d := int(l.Value), time.Duration(l.Value)*time.Second
	switch l.Key {
	case "max-conn-per-host":
		m.MaxConnPerHost = n
	case "max-conn-per-route":
		m.MaxConnPerRoute = n
	case "max-conn-per-source":
		m.MaxConnPerSource = n
	case "max-conn-per-connector":
		m.MaxConnPerConnector = n
	case "max-conn-per-relay":
		m.MaxConnPerRelay = n
	case "max-conn-per-domain":
		m.MaxConnPerDomain = n
	case "conn-delay-host":
		m.ConnDelayHost = d
	case "conn-delay-route":
		m.ConnDelayRoute = d
	case "conn-delay-source":
		m.ConnDelaySource = d
	case "conn-delay-connector":
		m.ConnDelayConnector = d
	case "conn-delay-relay":
		m.ConnDelayRelay = d
	case "conn-delay-domain":
		m.ConnDelayDomain = d
	case "reconn-delay-route":
		m.ReconnDelayRoute = d
	case "session-mail-max":
		m.SessionMailMax = n
	case "session-transaction-delay":
		m.SessionTransactionLag = d
	case "session-keepalive":
		m.SessionKeepalive = d
	case "max-failures-per-session":
		m.MaxFailuresPerSession = n
	case "task-hiwat":
		m.TaskHiwat = n
	case "task-lowat":
		m.TaskLowat = n
	case "task-release":
		m.TaskRelease = n
	case "inet4":
		m.Family = conf.Inet4
	case "inet6":
		m.Family = conf.Inet6
	}
	if !l.Pos.IsZero() {
		m.Written = append(m.Written, l.Key)
	}
}

// secret tells whether a table is one of passwords that its users log in with,
// and none that relays are shown.
func secret(l *load.Loaded, name conf.TableRef) bool {
	logIn := slices.ContainsFunc(l.Listens, func(n *conf.Listen) bool { return n.AuthTable == name })
	shown := slices.ContainsFunc(l.Actions, func(a *conf.Action) bool { return a.AuthTable == name })
	return logIn && !shown
}

// Lookup cuts out the part of the process that answers questions.
func Lookup(l *load.Loaded) *LookupConf {
	out := &LookupConf{
		ServerName: l.Server.Name, SubAddrDelim: l.Server.SubAddrDelim.Value, QueueTTL: l.Server.QueueTTL.Value,
		LocalNames: l.LocalNames, LocalAddrs: l.LocalAddrs,
	}
	if s := &l.Server; s.SRSKey.Value != "" {
		out.SRSKey, out.SRSKeyBackup, out.SRSTTL = s.SRSKey.Value, s.SRSKeyBackup.Value, s.SRSTTL.Value
	}
	for _, t := range l.Tables {
		p := Table{Name: t.Name, Inline: t.Inline, Backend: t.Backend, Config: t.Config,
			Identity: load.TableIdentity(t), Kind: t.Kind, Secret: secret(l, conf.TableRef(t.Name))}
		if path, ok := t.Dovecot(); ok && p.Secret {
			p.Backend, p.Config = "dovecot", path
			out.Tables = append(out.Tables, p)
			continue
		}
		for _, e := range t.Entries {
			p.Entries = append(p.Entries, Entry{e.Key, e.Value})
		}
		out.Tables = append(out.Tables, p)
	}
	for _, m := range l.Matches {
		out.Matches = append(out.Matches, rule(m))
	}
	for _, a := range l.Actions {
		out.Actions = append(out.Actions, Action{
			Name: a.Name, Method: a.Method, TTL: orTTL(a.TTL, l.Server.QueueTTL.Value),
			Alias: string(a.Alias), Virtual: string(a.Virtual), UserBase: string(a.UserBase),
			User: a.User, Wrapper: a.Wrapper,
		})
	}
	return out
}

func rule(m *conf.Match) Match {
	out := Match{
		Line: m.Pos.Line, Reject: m.Reject, Action: m.Action,
		FromKind: m.FromKind, From: cond(m.From), ForKind: m.ForKind, For: cond(m.For),
		Tag: cond(m.Tag), Helo: cond(m.Helo), TLS: cond(m.TLS), Auth: cond(m.Auth),
		MailFrom: cond(m.MailFrom), RcptTo: cond(m.RcptTo),
	}
	out.From.Set, out.For.Set = true, true
	return out
}

func cond(c conf.Cond) Cond {
	return Cond{Set: c.Set(), Not: c.Not, Regex: c.Regex, Table: string(c.Table)}
}

// Queue cuts out the part of the process that keeps and schedules mail.
func Queue(l *load.Loaded) *QueueConf {
	s := &l.Server
	out := &QueueConf{
		ServerName: s.Name, TTL: s.QueueTTL.Value, BounceWarn: s.BounceWarn.Value,
		Compression: s.QueueCompression.Value, Encryption: !s.QueueEncryption.Pos.IsZero(),
		EncryptionKey: s.QueueEncryption.Value, MaxMessageSize: s.MaxMessageSize.Value,
		MDA: MDALimits{
			MaxSession: limit(s.MDALimits, "max-session"), MaxSessionPerUser: limit(s.MDALimits, "max-session-per-user"),
			TaskHiwat: limit(s.MDALimits, "task-hiwat"), TaskLowat: limit(s.MDALimits, "task-lowat"),
			TaskRelease: limit(s.MDALimits, "task-release"),
		},
		Scheduler: SchedulerLimits{
			MaxInflight:     limit(s.SchedulerLimits, "max-inflight"),
			MaxEvpBatchSize: limit(s.SchedulerLimits, "max-evp-batch-size"),
			MaxMsgBatchSize: limit(s.SchedulerLimits, "max-msg-batch-size"),
			MaxSchedule:     limit(s.SchedulerLimits, "max-schedule"),
		},
		MTA: mtaLimits(s.MTALimits), MTAMaxDeferred: int(s.MTAMaxDeferred.Value),
	}
	for _, a := range l.Actions {
		q := QueueAction{
			Name: a.Name, Method: a.Method, TTL: orTTL(a.TTL, s.QueueTTL.Value), User: a.User,
			UserBase: string(a.UserBase), Path: a.Path, Junk: a.Junk, LMTPDest: a.LMTPDest,
			RcptTo: a.RcptTo, Wrapper: a.Wrapper,
		}
		if u, err := conf.ParseRelay(a.Host); a.Host != "" && err == nil {
			q.RelayHost = u.Host
		}
		q.RelayTable = a.HostTable != ""
		out.Actions = append(out.Actions, q)
	}
	return out
}

// Control cuts out the part of the process behind the control socket.
func Control(l *load.Loaded) *ControlConf {
	out := &ControlConf{ServerName: l.Server.Name}
	for _, t := range l.Tables {
		if !t.Inline {
			out.Tables = append(out.Tables, t.Name)
		}
	}
	return out
}

// Crypto cuts out the part of the process that signs.
func Crypto(l *load.Loaded) *CryptoConf {
	out := new(CryptoConf)
	for _, k := range l.PKIs {
		at := k.Place("key")
		out.Keys = append(out.Keys, Key{k.Name, KeyIdentity(k.Key), CertIdentity(k.Cert),
			fmt.Sprintf("%s:%d:%d", at.File, at.Line, at.Col)})
	}
	return out
}

// CertIdentity, KeyIdentity and CAIdentity name the descriptors of the files of
// certificates, private keys and authorities.
func CertIdentity(file string) string { return "cert:" + file }
func KeyIdentity(file string) string  { return "key:" + file }
func CAIdentity(file string) string   { return "ca:" + file }
