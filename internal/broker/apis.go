package broker

import (
	"cmp"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	keyProduce     = 0
	keyApiVersions = 18
)

// api is a request the broker serves: the versions it tells clients of and what handles them.
type api struct {
	min, max int16
	// servedMin is above min where versions are told of but refused: old clients of librdkafka take the lowest Produce
	// version for a sign of what else the broker can do.
	servedMin int16
	handle    func(r *request, q kmsg.Request) reply
}

// serve makes an api of a typed handler.
func serve[Q kmsg.Request](min, max int16, handle func(r *request, q Q) reply) api {
	return api{min: min, max: max, handle: func(r *request, q kmsg.Request) reply { return handle(r, q.(Q)) }}
}

// response returns the empty response to a request, in its version.
func response[P kmsg.Response](q kmsg.Request) P { return q.ResponseKind().(P) }

// code is the protocol's number of an error: 0 for none.
func code(err error) int16 {
	if err == nil {
		return 0
	}
	var e *kerr.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return kerr.UnknownServerError.Code
}

// serverAPIs are the requests served, in the ranges of Kafka 4.3 as far as the client needs them.
func (b *Broker) serverAPIs() map[int16]api {
	m := map[int16]api{
		keyProduce:          serve(0, 13, b.produce),
		1:                   serve(4, 18, b.fetch),
		2:                   serve(1, 11, b.listOffsets),
		3:                   serve(0, 13, b.metadata),
		8:                   serve(2, 10, b.offsetCommit),
		9:                   serve(1, 10, b.offsetFetch),
		10:                  serve(0, 6, b.findCoordinator),
		11:                  serve(0, 9, b.joinGroup),
		12:                  serve(0, 4, b.heartbeat),
		13:                  serve(0, 5, b.leaveGroup),
		14:                  serve(0, 5, b.syncGroup),
		15:                  serve(0, 6, b.describeGroups),
		16:                  serve(0, 5, b.listGroups),
		keyApiVersions:      serve(0, 4, b.apiVersions),
		keySASLHandshake:    serve(1, 1, b.saslHandshake),
		19:                  serve(2, 7, b.createTopics),
		20:                  serve(1, 6, b.deleteTopics),
		21:                  serve(0, 2, b.deleteRecords),
		22:                  serve(0, 5, b.initProducerID),
		23:                  serve(2, 4, b.offsetForLeaderEpoch),
		24:                  serve(0, 5, b.addPartitionsToTxn),
		25:                  serve(0, 4, b.addOffsetsToTxn),
		26:                  serve(0, 5, b.endTxn),
		27:                  serve(1, 2, b.writeTxnMarkers),
		28:                  serve(0, 6, b.txnOffsetCommit),
		29:                  serve(1, 3, b.describeACLs),
		30:                  serve(1, 3, b.createACLs),
		31:                  serve(1, 3, b.deleteACLs),
		32:                  serve(1, 4, b.describeConfigs),
		33:                  serve(0, 2, b.alterConfigs),
		35:                  serve(1, 5, b.describeLogDirs),
		keySASLAuthenticate: serve(0, 2, b.saslAuthenticate),
		37:                  serve(0, 3, b.createPartitions),
		42:                  serve(0, 2, b.deleteGroups),
		43:                  serve(0, 2, b.electLeaders),
		44:                  serve(0, 1, b.incrementalAlterConfigs),
		46:                  serve(0, 0, b.listPartitionReassignments),
		47:                  serve(0, 0, b.offsetDelete),
		48:                  serve(0, 1, b.describeClientQuotas),
		49:                  serve(0, 1, b.alterClientQuotas),
		50:                  serve(0, 0, b.describeUserSCRAM),
		51:                  serve(0, 0, b.alterUserSCRAM),
		60:                  serve(0, 2, b.describeCluster),
		61:                  serve(0, 0, b.describeProducers),
		65:                  serve(0, 0, b.describeTransactions),
		66:                  serve(0, 2, b.listTransactions),
		68:                  serve(0, 1, b.consumerGroupHeartbeat),
		69:                  serve(0, 1, b.consumerGroupDescribe),
		74:                  serve(0, 1, b.listConfigResources),
		75:                  serve(0, 0, b.describeTopicPartitions),
		88:                  serve(0, 0, b.streamsGroupHeartbeat),
		89:                  serve(0, 0, b.streamsGroupDescribe),
	}
	p := m[keyProduce]
	p.servedMin = 3
	m[keyProduce] = p
	return m
}

// feature is a feature of the cluster and its level.
type feature struct {
	name     string
	min, max int16
}

// features are finalized at their highest level. Clients speak version 2 of transactions, and the consumer and the streams
// protocol of groups, only if they see them here.
var features = [...]feature{{"group.version", 0, 1}, {"streams.version", 0, 1}, {"transaction.version", 0, 2}}

func (b *Broker) apiKeys() []kmsg.ApiVersionsResponseApiKey {
	var ks []kmsg.ApiVersionsResponseApiKey
	for key, a := range b.apis {
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = key, a.min, a.max
		ks = append(ks, k)
	}
	slices.SortFunc(ks, func(a, b kmsg.ApiVersionsResponseApiKey) int { return cmp.Compare(a.ApiKey, b.ApiKey) })
	return ks
}

func (b *Broker) apiVersions(r *request, q *kmsg.ApiVersionsRequest) reply {
	resp := response[*kmsg.ApiVersionsResponse](q)
	if q.Version >= 3 && (!softwareName(q.ClientSoftwareName) || !softwareName(q.ClientSoftwareVersion)) {
		resp.ErrorCode = kerr.InvalidRequest.Code
		return answer(resp)
	}
	resp.ApiKeys = b.apiKeys()
	resp.FinalizedFeaturesEpoch = 0
	for _, f := range features {
		// Version 3 cannot say that a feature may be off (KAFKA-17011).
		if q.Version > 3 || f.min > 0 {
			s := kmsg.NewApiVersionsResponseSupportedFeature()
			s.Name, s.MinVersion, s.MaxVersion = f.name, f.min, f.max
			resp.SupportedFeatures = append(resp.SupportedFeatures, s)
		}
		fin := kmsg.NewApiVersionsResponseFinalizedFeature()
		fin.Name, fin.MinVersionLevel, fin.MaxVersionLevel = f.name, f.max, f.max
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, fin)
	}
	return answer(resp)
}

// unsupportedApiVersions answers, in version 0, a client that asks in a version from the future: it tries again with one
// of those it is told.
func (b *Broker) unsupportedApiVersions() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = kerr.UnsupportedVersion.Code
	resp.ApiKeys = b.apiKeys()
	return resp
}

// softwareName says whether a client's name or version has the form KIP-511 demands.
func softwareName(s string) bool {
	if s == "" {
		return false
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (c != '.' && c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return true
}
