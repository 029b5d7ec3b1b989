#ifndef HOTLORA_CLIENT_REPORT_H_
#define HOTLORA_CLIENT_REPORT_H_

// Answers as lines for a terminal and as JSON for scripts.

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/image_client.h"
#include "hotlora/v1/adapters.pb.h"
#include "hotlora/v1/server.pb.h"

namespace hotlora {

// `files`: where each image went.
std::string GenerationText(const GeneratedImages& images, const std::vector<std::string>& files);
nlohmann::json GenerationJson(const GeneratedImages& images, const std::vector<std::string>& files);

std::string AdaptersText(const std::vector<v1::Adapter>& adapters);  // a table
nlohmann::json AdaptersJson(const std::vector<v1::Adapter>& adapters);
std::string AdapterText(const v1::Adapter& adapter);
nlohmann::json AdapterJson(const v1::Adapter& adapter);

std::string ServerInfoText(const v1::ServerInfo& info);
nlohmann::json ServerInfoJson(const v1::ServerInfo& info);

std::string StatisticsText(const v1::Statistics& statistics);
nlohmann::json StatisticsJson(const v1::Statistics& statistics);
std::string IntegrityText(const v1::BaseIntegrity& integrity);  // one line
nlohmann::json IntegrityJson(const v1::BaseIntegrity& integrity);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_REPORT_H_
