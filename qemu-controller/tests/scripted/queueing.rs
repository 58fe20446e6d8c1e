//! At most eight in-band commands are with the server; the rest wait in order; out-of-band ones
//! pass.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::peer::connected;

#[tokio::test(start_paused = true)]
async fn eight_in_flight_and_the_rest_in_order() {
    let (session, mut peer) = connected().await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..50 {
        let session = session.clone();
        calls.spawn(async move {
            session
                .execute(&format!("command-{number}"), &())
                .await
                .map(|_| number)
        });
    }
    peer.hear_until(8).await;
    // The ninth waits; an out-of-band command does not.
    let urgent = tokio::spawn({
        let session = session.clone();
        async move { session.execute_oob("urgent", &()).await }
    });
    assert!(peer.hear().await.oob);
    let urgent_id = peer.unanswered.pop_back().unwrap();
    peer.answer_to(&urgent_id).await;
    urgent.await.unwrap().unwrap();

    for number in 0..50 {
        assert_eq!(
            peer.unanswered.front().unwrap().name,
            format!("command-{number}")
        );
        peer.answer().await;
        assert_eq!(calls.join_next().await.unwrap().unwrap().unwrap(), number);
        if number < 42 {
            peer.hear().await;
            assert_eq!(peer.unanswered.len(), 8);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_out_of_order_reach_their_callers() {
    let (session, mut peer) = connected().await;
    let calls: Vec<_> = (0..8)
        .map(|number| {
            let session = session.clone();
            tokio::spawn(async move { session.execute(&format!("command-{number}"), &()).await })
        })
        .collect();
    peer.hear_until(8).await;
    while let Some(command) = peer.unanswered.pop_back() {
        peer.reply(&command, json!(command.name)).await;
    }
    for (number, call) in calls.into_iter().enumerate() {
        let name: String = call.await.unwrap().unwrap().parse().unwrap();
        assert_eq!(name, format!("command-{number}"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_command_keeps_its_place_until_it_is_answered() {
    let (session, mut peer) = connected().await;
    for _ in 0..8 {
        let session = session.clone();
        let call = tokio::spawn(async move { session.query_status().await });
        peer.hear().await;
        call.abort();
        let _ = call.await;
    }
    let ninth = tokio::spawn({
        let session = session.clone();
        async move { session.execute("ninth", &()).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(peer.unanswered.len(), 8);
    peer.answer().await;
    assert_eq!(peer.hear().await.name, "ninth");
    let command = peer.unanswered.pop_back().unwrap();
    peer.answer_to(&command).await;
    ninth.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn out_of_band_commands_queue_too() {
    let (session, mut peer) = connected().await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..20 {
        let session = session.clone();
        calls.spawn(async move {
            session
                .execute_oob(&format!("command-{number}"), &())
                .await
                .map(drop)
        });
    }
    peer.hear_until(8).await;
    let served = tokio::spawn(peer.serve());
    while let Some(answered) = calls.join_next().await {
        answered.unwrap().unwrap();
    }
    drop(session);
    served.await.unwrap();
}

/// A save puts back the run state that it found: a pause that came in between would be undone.
#[tokio::test(start_paused = true)]
async fn what_changes_the_run_state_waits_for_a_save() {
    for by in ["pause", "execute", "human monitor"] {
        let (session, mut peer) = connected().await;
        let saving = session.clone();
        let save = tokio::spawn(async move { saving.save_snapshot("s").await });
        peer.hear().await;
        let pause = tokio::spawn(async move {
            match by {
                "pause" => session.pause().await,
                "execute" => session.execute("stop", &()).await.map(drop),
                _ => session.human_monitor_command("stop").await.map(drop),
            }
        });
        // Time is paused: this is as long as anything moves.
        while timeout(Duration::from_secs(1), peer.hear()).await.is_ok() {}
        for command in std::mem::take(&mut peer.unanswered) {
            assert!(
                !["stop", "human-monitor-command"].contains(&command.name.as_str()),
                "{by}: sent while the save was not done"
            );
            let error = json!({ "class": "GenericError", "desc": "no" });
            peer.say(json!({ "error": error, "id": command.id }).to_string())
                .await;
        }
        save.await.unwrap().unwrap_err();
        peer.hear().await;
        peer.answer().await;
        pause.await.unwrap().unwrap();
    }
}
