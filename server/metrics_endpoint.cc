#include "server/metrics_endpoint.h"

#include <microhttpd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "server/tcp_listener.h"

namespace hotlora {
namespace {

constexpr unsigned int kIdleSeconds = 5;
// A request is a line and a few headers; the answer is not in this.
constexpr size_t kBytesPerConnection = 16 * 1024;

size_t MaxConnections() {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  return std::clamp<size_t>(files.rlim_cur / 8, 1, MetricsEndpoint::kMaxConnections);
}

MHD_Result Answer(MHD_Connection* connection, unsigned int status, const char* media_type, const std::string& body) {
  MHD_Response* const response =
      MHD_create_response_from_buffer(body.size(), const_cast<char*>(body.data()), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) {
    return MHD_NO;  // closes the connection
  }
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, media_type);
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
  const MHD_Result result = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return result;
}

MHD_Result AnswerReady(MHD_Connection* connection, const std::string& why_not = "") {
  return why_not.empty() ? Answer(connection, MHD_HTTP_OK, "text/plain", "ok\n")
                         : Answer(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain",
                                  absl::StrCat("not ready: ", why_not, "\n"));
}

}  // namespace

// What libmicrohttpd calls, on its one thread.
struct MetricsEndpointCallbacks {
  static MHD_Result OnRequest(void* self, MHD_Connection* connection, const char* path, const char* method,
                              const char* /*version*/, const char* /*body*/, size_t* /*body_size*/, void** /*state*/) {
    const auto& endpoint = *static_cast<MetricsEndpoint*>(self);
    if (std::strcmp(method, MHD_HTTP_METHOD_GET) != 0 && std::strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
      return Answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n");
    }
    const absl::string_view asked = path;
    if (asked == "/metrics") {
      return Answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", endpoint.metrics_.Render());
    }
    if (asked == "/-/ready") {
      return AnswerReady(connection, endpoint.why_not_ready_());
    }
    if (asked == "/-/healthy") {
      return AnswerReady(connection);
    }
    return Answer(connection, MHD_HTTP_NOT_FOUND, "text/plain", "not found\n");
  }

  // `state` is the connection's place in the list of all.
  static void OnConnection(void* self, MHD_Connection* connection, void** state, MHD_ConnectionNotificationCode what) {
    using Place = std::list<MHD_Connection*>::iterator;
    auto& connections = static_cast<MetricsEndpoint*>(self)->connections_;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
      connections.erase(*std::unique_ptr<Place>(static_cast<Place*>(*state)));
      return;
    }
    *state = new Place(connections.insert(connections.end(), connection));
    if (connections.size() > static_cast<MetricsEndpoint*>(self)->max_connections_) {
      ShutDown(connections.front());
      connections.splice(connections.end(), connections, connections.begin());  // the next one is another's turn
    }
  }

  // The thread sees the connection's end at its next look and closes it.
  static void ShutDown(MHD_Connection* connection) {
    const MHD_ConnectionInfo* const info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info != nullptr) {
      shutdown(info->connect_fd, SHUT_RDWR);
    }
  }
};

MetricsEndpoint::MetricsEndpoint(const Metrics& metrics, std::function<std::string()> why_not_ready)
    : metrics_(metrics), why_not_ready_(std::move(why_not_ready)), max_connections_(MaxConnections()) {}

MetricsEndpoint::~MetricsEndpoint() {
  if (server_ != nullptr) {
    MHD_stop_daemon(server_);
  }
}

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(const std::string& listen,
                                                                        const Metrics& metrics,
                                                                        std::function<std::string()> why_not_ready) {
  const auto listener = ListenTcp(listen);
  if (!listener.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics-listen ", listen, ": cannot listen there: ", listener.status().message()));
  }
  std::unique_ptr<MetricsEndpoint> endpoint(new MetricsEndpoint(metrics, std::move(why_not_ready)));
  endpoint->port_ = listener->port;
  endpoint->server_ =
      MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, /*port=*/0, /*accept_policy=*/nullptr, nullptr,
                       &MetricsEndpointCallbacks::OnRequest, endpoint.get(), MHD_OPTION_LISTEN_SOCKET, listener->socket,
                       MHD_OPTION_NOTIFY_CONNECTION, &MetricsEndpointCallbacks::OnConnection, endpoint.get(),
                       // More than are ever open, for those that are shut down and not closed yet.
                       MHD_OPTION_CONNECTION_LIMIT, static_cast<unsigned int>(2 * endpoint->max_connections_),
                       MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                       kBytesPerConnection, MHD_OPTION_END);
  if (endpoint->server_ == nullptr) {
    close(listener->socket);
    return absl::InternalError(absl::StrCat("--metrics-listen ", listen, ": the HTTP server cannot be started"));
  }
  return endpoint;
}

}  // namespace hotlora
