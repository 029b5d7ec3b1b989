#include "server/peer_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using Headers = std::vector<absl::string_view>;

TrustedProxies Trusting(const std::vector<std::string>& networks) {
  const auto proxies = TrustedProxies::Parse(networks);
  EXPECT_TRUE(proxies.ok()) << proxies.status();
  return proxies.value_or(TrustedProxies());
}

TEST(IpAddressTest, IsReadInEveryFormThatProxiesWrite) {
  const struct {
    const char* text;
    const char* address;
  } cases[] = {
      {"192.0.2.1", "ipv4:192.0.2.1"},         {" 192.0.2.1\t", "ipv4:192.0.2.1"},
      {"192.0.2.1:50000", "ipv4:192.0.2.1"},   {"2001:db8::1", "ipv6:[2001:db8::1]"},
      {"[2001:db8::1]", "ipv6:[2001:db8::1]"}, {"[2001:DB8:0::1]:443", "ipv6:[2001:db8::1]"},
      {"fe80::1%eth0", "ipv6:[fe80::1]"},      {"[fe80::1%eth0]:80", "ipv6:[fe80::1]"},
      {"::ffff:192.0.2.1", "ipv4:192.0.2.1"},  {"[::ffff:192.0.2.1]:80", "ipv4:192.0.2.1"},
  };
  for (const auto& [text, address] : cases) {
    const auto parsed = IpAddress::Parse(text);
    ASSERT_TRUE(parsed.has_value()) << text;
    EXPECT_EQ(parsed->ToString(), address) << text;
  }
}

TEST(IpAddressTest, NothingElseIsAnAddress) {
  for (const std::string& text :
       {std::string(), std::string("unknown"), std::string("192.0.2"), std::string("192.0.2.256"),
        std::string("192.0.2.1:"), std::string("192.0.2.1:99999"), std::string("192.0.2.1:x"),
        std::string("[192.0.2.1]"), std::string("[2001:db8::1"), std::string("[2001:db8::1]443"),
        std::string("[2001:db8::1]:x"), std::string("%eth0"), std::string("_hidden"),
        std::string("192.0.2.1 192.0.2.2"), std::string("192.0.2.1\0", 10), std::string(200, '1')}) {
    EXPECT_FALSE(IpAddress::Parse(text).has_value()) << text;
  }
}

TEST(IpAddressTest, ComesFromASocketsAddressToo) {
  sockaddr_storage storage{};
  auto& mapped = reinterpret_cast<sockaddr_in6&>(storage);
  mapped.sin6_family = AF_INET6;
  ASSERT_EQ(inet_pton(AF_INET6, "::ffff:127.0.0.2", &mapped.sin6_addr), 1);
  const auto address = IpAddress::Of(storage);
  ASSERT_TRUE(address.has_value());
  EXPECT_EQ(address->ToString(), "ipv4:127.0.0.2");
  EXPECT_TRUE(address->is_loopback());
  storage = {};
  storage.ss_family = AF_UNIX;
  EXPECT_FALSE(IpAddress::Of(storage).has_value());
}

TEST(IpAddressTest, OnePeerIsAnAddressOrA64) {
  EXPECT_EQ(IpAddress::Parse("192.0.2.1")->Network(), "ipv4:192.0.2.1");
  EXPECT_EQ(IpAddress::Parse("2001:db8:1:2:3:4:5:6")->Network(), "ipv6:[2001:db8:1:2::]/64");
  EXPECT_EQ(IpAddress::Parse("2001:db8:1:2:ffff::")->Network(), "ipv6:[2001:db8:1:2::]/64");
  EXPECT_NE(IpAddress::Parse("2001:db8:1:3::")->Network(), "ipv6:[2001:db8:1:2::]/64");
}

TEST(TrustedProxiesTest, AreAddressesOrNetworks) {
  const struct {
    const char* network;
    const char* inside;
    const char* outside;
  } cases[] = {
      {"10.0.0.0/8", "10.255.0.1", "11.0.0.1"},
      {"10.1.2.3/9", "10.127.255.255", "10.128.0.0"},
      {"192.0.2.7", "192.0.2.7", "192.0.2.6"},
      {"192.0.2.7/32", "::ffff:192.0.2.7", "192.0.2.6"},
      {"::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"},
      {"0.0.0.0/0", "203.0.113.9", "2001:db8::1"},
      {"2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"},
      {"2001:db8::1", "2001:db8::1", "2001:db8::2"},
      {"fe80::/10", "fe80::1%eth0", "2001:db8::2"},
      {"::/0", "2001:db8::1", "192.0.2.1"},
  };
  for (const auto& [network, inside, outside] : cases) {
    const TrustedProxies proxies = Trusting({"198.51.100.1", network});
    EXPECT_TRUE(proxies.Contains(*IpAddress::Parse(inside))) << network;
    EXPECT_FALSE(proxies.Contains(*IpAddress::Parse(outside))) << network;
  }
  for (const char* wrong : {"", "proxy", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8/8", "10.0.0.0/8x",
                            "2001:db8::/129", "/8", "10.0.0"}) {
    EXPECT_THAT(TrustedProxies::Parse({"10.0.0.0/8", wrong}).status().message(),
                testing::HasSubstr("it is an IP address"))
        << wrong;
  }
}

TEST(TrustedProxiesTest, OnlyATrustedPeerNamesAnother) {
  const TrustedProxies proxies = Trusting({"10.0.0.0/8"});
  const Peer direct = proxies.PeerOf("ipv4:192.0.2.1:50000", {"203.0.113.7"});
  EXPECT_EQ(direct.name, "ipv4:192.0.2.1:50000");
  EXPECT_EQ(direct.network, "ipv4:192.0.2.1");
  EXPECT_FALSE(direct.forwarded);
  const Peer behind = proxies.PeerOf("ipv4:10.1.2.3:50000", {"203.0.113.7"});
  EXPECT_EQ(behind.name, "ipv4:203.0.113.7");
  EXPECT_EQ(behind.network, "ipv4:203.0.113.7");
  EXPECT_TRUE(behind.forwarded);
  EXPECT_EQ(Trusting({}).PeerOf("ipv4:10.1.2.3:50000", {"203.0.113.7"}).name, "ipv4:10.1.2.3:50000");
  const Peer local = proxies.PeerOf("unix:/run/socket", {"203.0.113.7"});
  EXPECT_EQ(local.name, "unix:/run/socket");
  EXPECT_EQ(local.network, "unix:/run/socket");
}

TEST(TrustedProxiesTest, ThePeerIsTheRightMostAddressThatIsNoProxy) {
  const TrustedProxies proxies = Trusting({"10.0.0.0/8", "2001:db8::/32"});
  const struct {
    Headers forwarded;
    const char* peer;
  } cases[] = {
      {{"203.0.113.7"}, "ipv4:203.0.113.7"},
      {{"6.6.6.6, 203.0.113.7"}, "ipv4:203.0.113.7"},  // the caller wrote 6.6.6.6
      {{"6.6.6.6 ,203.0.113.7:4711 , 10.9.9.9"}, "ipv4:203.0.113.7"},
      {{"6.6.6.6", "203.0.113.7", "10.9.9.9"}, "ipv4:203.0.113.7"},
      {{"6.6.6.6, 203.0.113.7", "10.9.9.9, [2001:db8::5]:80"}, "ipv4:203.0.113.7"},
      {{"nonsense,,203.0.113.7"}, "ipv4:203.0.113.7"},
      {{"2002:1::1%eth0"}, "ipv6:[2002:1::1]"},
      {{"10.7.7.7, 10.9.9.9"}, "ipv4:10.7.7.7"},  // a machine among the proxies calls
  };
  for (const auto& [forwarded, peer] : cases) {
    EXPECT_EQ(proxies.PeerOf("ipv4:10.1.2.3:50000", forwarded).name, peer) << forwarded.front();
    EXPECT_EQ(proxies.PeerOf("ipv6:%5B2001:db8::9%25eth0%5D:50000", forwarded).name, peer) << forwarded.front();
  }
  EXPECT_EQ(proxies.PeerOf("ipv4:10.1.2.3:50000", {"2002:1:2:3:4::"}).network, "ipv6:[2002:1:2:3::]/64");
}

TEST(TrustedProxiesTest, WithoutASoundAddressThePeerIsTheConnections) {
  const TrustedProxies proxies = Trusting({"10.0.0.0/8"});
  for (const Headers& forwarded : {Headers{}, Headers{""}, Headers{"203.0.113.7, unknown"}, Headers{"203.0.113.7,"},
                                   Headers{"203.0.113.7", "unknown, 10.9.9.9"}}) {
    const Peer peer = proxies.PeerOf("ipv4:10.1.2.3:50000", forwarded);
    EXPECT_EQ(peer.name, "ipv4:10.1.2.3:50000");
    EXPECT_EQ(peer.network, "ipv4:10.1.2.3");
    EXPECT_TRUE(peer.forwarded);
  }
}

}  // namespace
}  // namespace hotlora
