// IPv4 and IPv6 addresses of sockets, and who has a port.
#pragma once

#include <cstdint>
#include <string>

namespace stasis::resource {

// Both take struct sockaddr_in or sockaddr_in6 as bytes. An IPv4 address and the same one mapped into IPv6
// are equal.
std::string endpoint(const std::string& address);  // for comparing
std::string shown(const std::string& address);     // "10.0.0.1:80", "[::1]:80"

uint16_t port_of(const std::string& address);
bool is_loopback(const std::string& address);
bool is_any(const std::string& address);
// The same address with another port.
std::string with_port(std::string address, uint16_t port);
// 127.0.0.1 or ::1 with port 0.
std::string loopback(int family);
// 0.0.0.0 or :: with port 0.
std::string any_address(int family);

// "process 812 (redis-server)" or "a program of user 1000", as far as we may know; empty when nobody listens
// there.
std::string holder_of_tcp_port(uint16_t port);

}  // namespace stasis::resource
