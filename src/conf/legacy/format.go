package legacy

import "strings"

// specifiers are the letters of old format strings and today's names. `%u` was
// who gets the mail, `%a` the address before aliases; in 5.2 and 5.3 they had
// changed places. They are never written.
var (
	mapSpecifiers = map[byte]string{
		'a': "dest.user", 'u': "user.username", 'd': "dest.domain", 'U': "sender.user", 'D': "sender.domain",
	}
	tableSpecifiers = map[byte]string{
		'a': "user.username", 'u': "dest.user", 'd': "dest.domain", 'U': "sender.user", 'D': "sender.domain",
	}
)

// format writes %u as %{user.username}, and %0u, its first letter, as
// %{user.username[0]}.
func (p *parser) format(s string) string {
	names := tableSpecifiers
	if p.dialect == Maps {
		names = mapSpecifiers
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		j, index := i+1, ""
		if j < len(s) && '0' <= s[j] && s[j] <= '9' {
			index = "[" + s[j:j+1] + "]"
			j++
		}
		name := ""
		if j < len(s) {
			name = names[s[j]]
		}
		if name == "" {
			b.WriteByte(s[i])
			continue
		}
		b.WriteString("%{" + name + index + "}")
		i = j
	}
	return b.String()
}
