package conf

// MethodWords are the words of the methods, in the order of the manual. It is
// never written.
var MethodWords = []string{"mbox", "maildir", "mda", "lmtp", "expand-only", "forward-only", "relay"}

// Reserved tells whether a bare word is a keyword of the modern grammar, and so
// must be quoted where a name or a value is meant.
func Reserved(word string) bool { return reserved[word] }

// ReservedWords returns the keywords of the modern grammar.
func ReservedWords() []string {
	out := make([]string, 0, len(reserved))
	for w := range reserved {
		out = append(out, w)
	}
	return out
}

// reserved is never written.
var reserved = map[string]bool{
	"action": true, "admd": true, "alias": true, "any": true, "auth": true,
	"auth-optional": true, "backup": true, "bounce": true, "bypass": true,
	"ca": true, "cert": true, "chain": true, "chroot": true, "ciphers": true,
	"commit": true, "compression": true, "connect": true, "data": true,
	"data-line": true, "dhe": true, "disconnect": true, "domain": true,
	"ehlo": true, "encryption": true, "expand-only": true, "fcrdns": true,
	"filter": true, "for": true, "forward-only": true, "from": true,
	"greylist": true, "group": true, "helo": true, "helo-src": true, "host": true,
	"hostname": true, "hostnames": true, "include": true, "inet4": true,
	"inet6": true, "junk": true, "key": true, "limit": true, "listen": true,
	"lmtp": true, "local": true, "mail-from": true, "maildir": true,
	"mask-src": true, "masquerade": true, "match": true, "max-deferred": true,
	"max-message-size": true, "mbox": true, "mda": true, "mta": true, "mx": true,
	"no-dsn": true, "no-verify": true, "noop": true, "on": true, "phase": true,
	"pki": true, "port": true, "proc": true, "proc-exec": true,
	"protocols": true, "proxy-v2": true, "queue": true, "quit": true,
	"rcpt-to": true, "rdns": true, "received-auth": true, "recipient": true,
	"regex": true, "reject": true, "relay": true, "report": true,
	"rewrite": true, "rset": true, "scheduler": true, "senders": true,
	"smtp": true, "smtp-in": true, "smtp-out": true, "smtps": true,
	"socket": true, "src": true, "srs": true, "sub-addr-delim": true,
	"table": true, "tag": true, "tagged": true, "tls": true,
	"tls-require": true, "ttl": true, "user": true, "userbase": true,
	"verify": true, "virtual": true, "warn-interval": true, "wrapper": true,
}
